import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from studio.metrics.statistics import estimate, paired
from studio.metrics.table import Row
from studio.records.runs import EventLog, RunFolder
from studio.reports import report
from studio.reports.charts import Curve, chart, running_mean, ticks
from studio.reports.html import EMBED_PIXELS, TRAINED, Column, Page, write


def _picture(path: Path, shade: int, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (shade, shade, shade)).save(path)
    return path


def _embedded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "my run")
    folder.path.mkdir()
    settings = {
        "method": {"kind": "dreambooth", "model": "studio-tiny", "adapter": {"kind": "lora"}},
        "loop": {"steps": 20},
    }
    folder.config.write_text(json.dumps(settings))
    log = EventLog(folder)
    told = {"preset": "tiny, as asked", "model": "SDXL (sdxl), told by its name"}
    log.write("start", step=0, facts=["device: cpu (1 threads), 1 process", "precision: fp32"], **told)
    for step in (0, 20):
        pictures = [_picture(folder.samples / f"step-{step:08d}" / f"{i}.png", step + i) for i in range(4)]
        log.write(
            "preview",
            step=step,
            folder=str(pictures[0].parent),
            prompts=["a", "b"],
            scores={"quality": step / 50},
        )
    for step in range(1, 21):
        log.write("step", step=step, loss=1 / step, prior=2.0, lr=1e-4, seconds=0.1)
    log.write("done", step=20, seconds=61.0)
    log.close()
    return folder


def test_report_of_a_run_contains_every_picture(run, tmp_path):
    text = write(report.from_run(run), tmp_path / "report.html").read_text()
    for picture in run.samples.glob("*/*.png"):
        assert _embedded(picture) in text


def test_a_run_that_was_moved_keeps_its_pictures(run, tmp_path):
    moved = RunFolder(run.path.rename(tmp_path / "elsewhere"))
    assert [len(column.pictures) for column in report.from_run(moved).columns] == [2, 2]


def test_the_command_that_makes_it_again_writes_over_nothing(run):
    assert report.from_run(run).command == f"studio train --config '{run.config}' --name 'my run-again'"


def test_report_is_one_file_that_asks_for_nothing_else(run, tmp_path):
    text = write(report.from_run(run), tmp_path / "report.html").read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert "<link" not in text
    assert "<script" not in text


def test_report_tells_method_model_steps_time_and_hardware(run):
    assert dict(report.from_run(run).facts) == {
        "Method": "dreambooth",
        "Model": "studio-tiny",
        "Weights": "lora",
        "Steps": "20",
        "Training time": "61 s",
        "Model taken for": "SDXL (sdxl), told by its name",
        "Preset": "tiny, as asked",
        "Hardware": "cpu (1 threads), 1 process",
    }


def test_training_time_counts_what_came_before_a_stop(run):
    log = EventLog(run)
    log.write("stopped", step=21, seconds=100.0)
    log.close()
    assert dict(report.from_run(run).facts)["Training time"] == "2.7 min"


def test_losses_and_preview_scores_become_curves_and_the_best_step_is_marked(run):
    found = {curve.name: curve for curve in report.curves(run)}
    assert list(found) == ["Loss", "Prior", "Quality while training"]
    assert found["Quality while training"].mark == 20


def test_a_part_that_is_all_of_the_loss_is_drawn_once(tmp_path):
    folder = RunFolder(tmp_path)
    log = EventLog(folder)
    for step in (1, 2):
        log.write("step", step=step, loss=1 / step, loss_instance=1 / step)
    log.close()
    assert [curve.name for curve in report.curves(folder)] == ["Loss"]


def test_a_run_that_has_only_started_still_has_a_report(tmp_path):
    folder = RunFolder(tmp_path)
    folder.config.write_text('{"method": {"kind": "dreambooth"}}')
    assert "All settings" in write(report.from_run(folder), tmp_path / "report.html").read_text()


def test_words_of_a_person_cannot_become_markup(tmp_path):
    page = Page(
        title="<b>",
        prompts=["<script>alert(1)</script>"],
        columns=[Column(TRAINED, [[_picture(tmp_path / "0.png", 0)]])],
    )
    text = write(page, tmp_path / "report.html").read_text()
    assert "<script>" not in text
    assert "&lt;b&gt;" in text


def test_large_pictures_are_embedded_small(tmp_path):
    large = _picture(tmp_path / "0.png", 9, size=2 * EMBED_PIXELS)
    text = write(Page(title="t", references=[large]), tmp_path / "report.html").read_text()
    assert "data:image/webp" in text
    assert _embedded(large) not in text


def test_pictures_may_stay_beside_the_report(tmp_path):
    picture = _picture(tmp_path / "pictures" / "0.png", 9)
    text = write(Page(title="t", references=[picture]), tmp_path / "report.html", embed=False).read_text()
    assert 'src="pictures/0.png"' in text


def test_a_score_shows_both_numbers_and_a_verdict_in_words(tmp_path):
    base, tuned = [0.2, 0.21, 0.22], [0.4, 0.42, 0.44]
    row = Row("likeness", estimate(tuned), estimate(base), paired(base, tuned), 0.7)
    text = write(Page(title="t", scores=[row]), tmp_path / "report.html").read_text()
    assert "0.210" in text
    assert "0.420" in text
    assert "+0.210" in text
    assert ">better<" in text
    assert report.summary([row]) == (
        "Likeness to the subject rose from 0.21 to 0.42, 43% of the way to true pictures (0.70)."
    )


def test_a_curve_needs_two_finite_points():
    assert chart(Curve("loss", [(1, 1.0), (2, float("nan"))])) == ""
    assert "polyline" in chart(Curve("loss", [(1, 1.0), (2, 1.0)]))


@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.31, 0.33), (-5.0, 120.0), (2.0, 2.0), (1e-6, 3e-6)])
def test_ticks_cover_the_range(ends):
    found = ticks(*ends)
    assert found[0] <= ends[0] + 1e-12
    assert found[-1] >= ends[1] - 1e-12
    assert 2 <= len(found) <= 7


def test_running_mean_keeps_a_constant():
    assert running_mean([2.0] * 5, 3) == [2.0] * 5


def test_the_report_needs_no_torch():
    code = "import sys, studio.reports.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

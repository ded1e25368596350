"""The Runs page: records, curves and the small pieces that show them."""

import time

import pytest

from studio.catalog.run import Run
from studio.queue.jobs import Process
from studio.records import runs
from studio.records.runs import EventLog
from studio.settings.run import Loop
from trainers.dreambooth.config import DreamBooth
from ui import charts, parts, records, run_view
from ui.workspace import Workspace


def recorded(workspace: Workspace, name: str = "a", *events: dict) -> records.Record:
    run = Run(method=DreamBooth(data="photos"), name=name, output=str(workspace.runs), loop=Loop(steps=10))
    log = EventLog(runs.create(run))
    for event in events:
        log.write(**event)
    log.close()
    return records.read(workspace, name)


def test_a_record_holds_the_curves_and_the_best_checkpoint(workspace: Workspace):
    found = recorded(
        workspace,
        "a",
        {"event": "start", "step": 0},
        {"event": "step", "step": 1, "loss": 2.0, "seconds": 0.5},
        {"event": "step", "step": 2, "loss": 1.0, "seconds": 0.5},
        {"event": "preview", "step": 0, "scores": {"quality": 0.2}, "prompts": ["a"]},
        {"event": "preview", "step": 2, "scores": {"quality": 0.7}, "prompts": ["a"]},
    )
    assert found.curves()["loss"] == [(1, 2.0), (2, 1.0)]
    assert found.best() == (2, "highest quality of its pictures (0.700), of 2 previews")
    assert records.status(found, None) == "running"


def test_a_run_whose_job_was_lost_does_not_count_as_running(workspace: Workspace):
    found = recorded(workspace, "a", {"event": "start", "step": 0})
    job = workspace.jobs.add("train", {}, title="a", run=str(found.folder.path))
    workspace.jobs.claim("cpu", Process(pid=2**22 - 3, started=1.0))
    workspace.jobs.finish(job, "failed", error="gone")
    assert records.status(found, records.job_of(workspace.jobs.all(), found)) == "failed"


def test_a_stopped_run_whose_resuming_broke_at_once_has_failed(workspace: Workspace):
    found = recorded(workspace, "a", {"event": "start", "step": 0}, {"event": "stopped", "step": 1})
    job = workspace.jobs.add("resume", {}, title="a", run=str(found.folder.path))
    workspace.jobs.finish(job, "failed", error="gone")
    assert records.status(found, records.job_of(workspace.jobs.all(), found)) == "failed"


def test_a_smoothed_constant_stays_constant():
    points = [(float(i), 3.0) for i in range(5)]
    assert [y for _, y in charts.smoothed(points, 0.9)] == pytest.approx([3.0] * 5)
    assert charts.smoothed([(0, 1.0), (1, 5.0)], 0.0) == [(0, 1.0), (1, 5.0)]


def test_a_chart_escapes_names_and_needs_two_points():
    assert charts.chart("loss", [charts.Line("a", [(0, 1)])]) == ""
    drawn = charts.chart("<loss>", [charts.Line("<b>", [(0, 1), (1, 2)])])
    assert "<b>&lt;loss&gt;</b>" in drawn
    assert "&lt;b&gt;" in drawn


def test_what_people_wrote_is_escaped(workspace: Workspace):
    assert "<script>" not in parts.note("<script>")
    assert "<script>" not in parts.card("<script>", "<script>", "done", line="<script>")
    assert "<script>" not in parts.picture(workspace, "a.png", "<script>")


def test_times_are_told_as_people_say_them():
    assert [parts.duration(s) for s in (5, 600, 9000)] == ["5 s", "10 min", "2.5 h"]
    assert parts.since(time.time() - 3) == "for 3 s"


def test_what_a_run_prepares_is_told_until_it_takes_steps(workspace: Workspace):
    run = Run(method=DreamBooth(data="photos"), name="new", output=str(workspace.runs))
    log = EventLog(runs.create(run))
    log.write("prepare", step=0, what="latents", done=21, total=48)
    record = records.read(workspace, "new")
    assert record.preparing == "latents, 21 of 48"
    assert "latents, 21 of 48" in run_view.header(record, "running", None)
    log.write("start", step=0, facts=[])
    log.close()
    assert records.read(workspace, "new").preparing == ""

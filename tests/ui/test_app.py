"""The app in a real browser, end to end, on the embedded model."""

import os
import shutil
import signal
from collections.abc import Iterator

import pytest

from studio import assets
from studio.queue.jobs import Jobs
from studio.records import recipes, runs
from tests.ui.browser import CHROMIUM, DRIVER, Browser, Studio, browser, wait

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromium-driver"),
    pytest.mark.xdist_group("browser"),
    pytest.mark.timeout(600),
]
LONG = 400.0


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    root = tmp_path_factory.mktemp("workspace")
    shutil.copytree(assets.path("samples/unicorn"), root / "unicorn")
    opened = Studio(root)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def trained(studio: Studio, page: Browser) -> str:
    """The name of a run that a new user trained, from upload to export."""
    page.open(studio.address)
    page.upload("#upload", *sorted(assets.path("samples/unicorn").glob("*.png"))[:3])
    read = "return document.querySelector('#folder input').value"
    wait(lambda: page.driver.execute_script(read).startswith("uploads/"), "the uploaded folder")
    page.write("#method-class_word", "animal")
    page.write("#method-token", "sks")
    page.write("#loop-steps", "2")
    page.until("#verdict", "Ready to start")
    page.click("#start")
    page.until("#run-header", "done", LONG)
    names = [folder.path.name for folder in runs.list_runs(studio.root / "runs")]
    assert len(names) == 1
    return names[0]


def test_a_new_user_trains_a_subject_and_sees_its_pictures(page: Browser, trained: str):
    assert trained in page.text("#run-header")
    assert "2 of 2" in page.text("#run-header")
    assert page.driver.execute_script(
        "return [...document.querySelectorAll('#run-pictures img')].every(i => i.complete && i.naturalWidth)"
    )
    assert page.driver.execute_script("return document.querySelectorAll('#run-pictures img').length") >= 1


def test_the_form_shows_the_command_and_the_settings_it_would_run(
    page: Browser, studio: Studio, trained: str
):
    page.open(studio.address)
    page.choose("#folder", "unicorn")
    page.write("#loop-steps", "17")
    read = "return document.querySelector('#command textarea').value"
    wanted = "studio train dreambooth --data unicorn --loop.steps 17"
    assert wait(lambda: page.driver.execute_script(read) == wanted, wanted)


def test_a_drawing_carries_its_recipe_and_decor_has_a_slider(page: Browser, studio: Studio, trained: str):
    page.open(f"{studio.address}/?view=sample")
    page.choose("#artifact-0", f"runs/{trained}")
    page.write("#prompt", "a sticker of a sks animal on a red background")
    page.write("#num_images", "1")
    page.write("#steps", "2")
    page.click("#edit-decor button")
    page.click("#use-decor input")
    page.write("#decor-undesired", "red")
    page.write("#decor-strength", "0.5")
    page.click("#draw")
    page.until("#result", "seed 0 · decor", LONG)
    pictures = sorted((studio.root / "samples").glob("*.png"))
    request = recipes.read(pictures[-1])
    assert '"strength": 0.5' in request.edits[0]
    page.open(f"{studio.address}/?view=sample")
    page.upload("#recipe", pictures[-1])
    page.until("#draw-told", "The recipe is taken over; press Draw")
    checked = "return document.querySelector('#use-decor input')?.checked"
    assert wait(lambda: page.driver.execute_script(checked), "the edit of the recipe")
    prompt = page.driver.execute_script("return document.querySelector('#prompt textarea').value")
    assert prompt == "a sticker of a sks animal on a red background"


def test_a_grid_compares_along_two_axes(page: Browser, studio: Studio, trained: str):
    page.open(f"{studio.address}/?view=sample")
    page.choose("#artifact-0", f"runs/{trained}")
    page.write("#prompt", "a sticker of a sks animal")
    page.write("#steps", "2")
    page.click("#compare button")
    page.write("#values-x", "0, 1")
    page.click("#draw-grid")
    page.until("#result", "strength 0", LONG)
    assert (
        page.driver.execute_script("return document.querySelectorAll('#result table.grid img').length") == 4
    )


def test_a_subject_is_measured_and_exported_from_the_page(page: Browser, studio: Studio, trained: str):
    page.open(f"{studio.address}/?view=evaluate")
    page.choose("#eval-artifact", f"runs/{trained}")
    page.choose("#eval-data", "unicorn")
    page.write("#eval-num_images", "1")
    page.write("#eval-steps", "2")
    page.click("#measure")
    page.until("#reports .chosen", f"{trained}\\s+evaluation", LONG)
    page.driver.switch_to.frame(page.find("#report iframe"))
    page.until("body", "[Ll]ikeness")
    assert page.driver.find_elements("css selector", "img")
    page.driver.switch_to.default_content()

    page.open(f"{studio.address}/?view=shelf")
    page.choose("#artifact", f"runs/{trained}")
    page.until("#tabs", "pytorch_lora_weights.safetensors")
    page.click("#formats label:nth-of-type(4) input")
    page.click("#export")
    page.until("#export-told", "Written and read back", LONG)
    assert list((studio.root / "runs" / trained / "export").rglob("adapter_model.safetensors"))


def test_a_model_writes_captions_and_a_check_shows_the_crops(page: Browser, studio: Studio):
    shutil.copytree(studio.root / "unicorn", studio.root / "bare", ignore=shutil.ignore_patterns("*.jsonl"))
    page.open(f"{studio.address}/?view=data")
    page.choose("#data-folder", "bare")
    page.until("#data-gallery", "no caption")
    page.click("#write-fold button")
    page.click("#write-captions")
    page.until("#data-told", "5 captions written", LONG)
    assert len(list((studio.root / "bare").glob("*.txt"))) == 5
    page.until("#data-gallery", "sticker|of a")
    page.click("#check-fold button")
    page.write("#data-size", "64")
    page.click("#check-data")
    page.until("#data-checked", "As training sees them", LONG)


def test_a_subject_is_drawn_from_reference_pictures_alone(page: Browser, studio: Studio):
    page.open(f"{studio.address}/?view=sample")
    page.choose("#artifact-0", "jedi-tiny")
    page.upload("#references", *sorted((studio.root / "unicorn").glob("*.png"))[:2])
    page.until("#references", r"1\s*\.png")
    page.write("#prompt", "a sticker of an animal on a red background")
    page.write("#num_images", "1")
    page.write("#steps", "2")
    page.click("#draw")
    page.until("#result", "red background · seed 0", LONG)
    newest = max((studio.root / "samples").glob("*.png"), key=lambda path: path.stat().st_mtime)
    assert len(recipes.read(newest).reference) == 2


def test_wrong_inputs_are_refused_at_their_field(page: Browser, studio: Studio):
    page.open(studio.address)
    page.until("#method-class_word", "Class word")
    page.click("#start")
    page.until("#verdict", "Data is missing")
    page.choose("#folder", "unicorn")
    page.write("#loop-steps", "0")
    page.until("#loop-steps", "greater than or equal to 1")
    page.write("#loop-steps", "5")
    page.until("#verdict", "Ready to start")
    page.choose("#folder", "/etc")
    page.until("#verdict", "outside of the allowed folder")
    assert page.foreign_requests() == []


def moved(jobs: Jobs, job: int, before: float) -> None:
    """Wait until a running job has done more steps."""
    wait(lambda: (now := jobs.get(job)).progress > before or not now.is_open, "a step", LONG)
    assert jobs.get(job).state == "running", jobs.get(job).error


def test_a_run_survives_a_closed_tab_a_killed_server_and_a_killed_worker(page: Browser, studio: Studio):
    jobs = Jobs(studio.root / ".studio" / "jobs")
    page.open(studio.address)
    page.choose("#folder", "unicorn")
    page.write("#method-token", "sks")
    page.write("#loop-steps", "100000")
    page.until("#verdict", "Ready to start")
    page.click("#start")
    job = wait(jobs.running, "a running job", LONG)[0]
    page.driver.get("about:blank")
    moved(jobs, job.id, 0.0)

    studio.kill()
    before = jobs.get(job.id).progress
    studio.start()
    page.open(f"{studio.address}/?view=runs")
    page.until("#run-cards", "running")
    moved(jobs, job.id, before)

    page.tab("Sample")
    page.choose("#source", "running:")
    page.write("#prompt", "a sticker of a star")
    page.write("#num_images", "1")
    page.write("#steps", "2")
    page.click("#draw")
    page.until("#result", "From the live weights at step", LONG)

    page.tab("Runs")
    page.click("#run-cards .card")
    page.click("#stop")
    page.until("#run-header", "stopped", LONG)
    page.click("#resume")
    again = wait(jobs.running, "the resumed job", LONG)[0]
    wait(lambda: jobs.get(again.id).run, "the resumed run", LONG)
    os.kill(again.pid, signal.SIGKILL)
    page.until("#run-header", "failed", LONG)
    page.until("#run-header", "resume the run to go on")

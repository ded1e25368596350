"""What a person clicks on each page, in a real browser, with a queue that nothing empties: no job runs, so it is quick."""

import json
import shutil
from collections.abc import Iterator

import pytest
import yaml
from selenium.webdriver.common.keys import Keys

from studio import assets
from studio.catalog.run import Run
from studio.queue.jobs import Jobs
from studio.records import runs
from studio.records.processes import me
from studio.records.runs import EventLog
from studio.settings.run import Loop
from tests.ui.browser import CHROMIUM, DRIVER, Browser, Studio, browser, wait
from trainers.dreambooth.config import DreamBooth

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromium-driver"),
    pytest.mark.xdist_group("browser"),
    pytest.mark.timeout(600),
]
SKETCHES = ("first", "second")


def recorded(studio_runs: str, name: str, steps: int) -> None:
    """A finished run, as its folder tells it."""
    method = DreamBooth(data="unicorn", token="zwx", class_word="animal")
    run = Run(method=method, name=name, output=studio_runs, loop=Loop(steps=steps))
    log = EventLog(runs.create(run))
    log.write("start", step=0, facts=[])
    for step in range(1, steps + 1):
        log.write("step", step=step, loss=1 / step, seconds=0.5)
    log.write("done", step=steps, seconds=1.0)
    log.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    root = tmp_path_factory.mktemp("workspace")
    shutil.copytree(assets.path("samples/unicorn"), root / "unicorn")
    for steps, name in enumerate(SKETCHES, 4):
        recorded(str(root / "runs"), name, steps)
    here = me()
    with Jobs(root / ".studio" / "jobs").writing() as db:  # this process seems to work for the device
        db.execute(
            "insert into holders (device, pid, started) values ('cpu', ?, ?)", (here.pid, here.started)
        )
    opened = Studio(root)
    yield opened
    with Jobs(root / ".studio" / "jobs").writing() as db:
        db.execute("delete from holders")
    opened.close()


@pytest.fixture(scope="module")
def page(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def jobs(studio: Studio) -> Iterator[Jobs]:
    found = Jobs(studio.root / ".studio" / "jobs")
    yield found
    for job in found.queue():
        found.stop(job.id)


def held(page: Browser, css: str) -> str:
    """What a field holds."""
    return page.driver.execute_script(f"return document.querySelector('{css}').value")


def refused(page: Browser, button: str, told: str, message: str, field: str) -> None:
    """Press a button, and read what is wrong where it would be done and at the field."""
    page.click(button)
    page.until(told, message)
    page.until(f"{field} .why", message)


def test_captions_are_saved_and_replaced_in_bulk(page: Browser, studio: Studio):
    page.open(f"{studio.address}/?view=data")
    refused(page, "#save-caption", "#data-told", "Choose a folder first", "#data-folder")
    page.choose("#data-folder", "unicorn")
    page.until("#data-gallery", "5 pictures")
    refused(page, "#save-caption", "#data-told", "Pick a picture first", "#caption")
    page.click("#data-gallery .pick")
    wait(lambda: "white background" in held(page, "#caption textarea"), "the caption")
    page.write("#caption", "a unicorn on snow")
    page.click("#save-caption")
    page.until("#data-gallery", "a unicorn on snow")
    page.click("#find-fold button")
    page.write("#find", "a sks animal")
    page.write("#replace", "a unicorn")
    page.click("#replace-all")
    page.until("#data-told", "Changed 4 captions")
    assert held(page, "#caption textarea") == ""  # what was picked before the change cannot be saved over it
    table = (studio.root / "unicorn" / "metadata.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in table]
    assert texts[0] == "a unicorn on snow"
    assert all("sks" not in text and "unicorn" in text for text in texts)
    page.write("#find", "a sks animal")
    refused(page, "#replace-all", "#data-told", "No caption holds", "#find")


def test_waiting_jobs_change_places_and_are_canceled_where_they_are_shown(
    page: Browser, studio: Studio, jobs: Jobs
):
    first, second = (
        jobs.add("train", {}, title=name, run=str(studio.root / name)) for name in ("one", "two")
    )
    page.open(f"{studio.address}/?view=runs")
    page.until("#queue", r"one\s[\s\S]*two")
    page.click(f"#queue [data-pick='earlier {second}']")
    page.until("#queue", r"two\s[\s\S]*one")
    assert [job.id for job in jobs.queue()] == [second, first]
    page.click(f"#queue [data-pick='stop {second}']")
    wait(lambda: [job.id for job in jobs.queue()] == [first], "the canceled job")
    assert jobs.get(second).state == "canceled"


def test_a_cloned_run_fills_the_form_which_saves_and_loads_again(page: Browser, studio: Studio):
    page.open(f"{studio.address}/?view=runs")
    page.click("#run-cards [data-pick=first]")
    page.until("#run-header", "first")
    page.click("#clone")
    page.until("#verdict", "Ready to start")
    assert held(page, "#method-token textarea, #method-token input") == "zwx"
    assert held(page, "#folder input") == "unicorn"
    assert "--loop.steps 4" in held(page, "#command textarea")
    page.write("#loop-steps", "6")
    page.click("#save")
    page.until("#verdict", "dreambooth.yaml")
    saved = studio.root / ".studio" / "settings" / "dreambooth.yaml"
    assert yaml.safe_load(saved.read_text())["loop"]["steps"] == 6
    page.open(studio.address)
    page.find("#loop-steps")
    page.upload("#load", saved)
    wait(lambda: held(page, "#loop-steps input") == "6", "the loaded steps")
    page.click("#level label:last-of-type input")
    page.until("#tabs", "Training loop")
    assert held(page, "#method-token textarea, #method-token input") == "zwx"


def test_runs_are_compared_by_curves_and_settings(page: Browser, studio: Studio):
    page.open(f"{studio.address}/?view=runs")
    page.click("#compare-fold button")
    for name in SKETCHES:
        page.choose("#compare-runs", name)
    page.until("#together", r"Loss[\s\S]*first\s+second")
    page.until("#together", r"loop\.steps\s+4\s+5")


def test_wrong_requests_are_refused_at_their_field_and_start_no_job(
    page: Browser, studio: Studio, jobs: Jobs
):
    def wrong(message: str, field: str) -> None:
        refused(page, "#draw", "#draw-told", message, field)

    page.open(f"{studio.address}/?view=sample")
    wrong("There is no prompt", "#prompt")
    page.write("#prompt", "x" * 2100)
    wrong("2100 characters; 2000 are allowed", "#prompt")
    page.write("#prompt", "a fox")
    for css, value, message in (
        ("#seed", "-1", "seed was given as -1"),
        ("#seed", "", "Seed is empty"),
        ("#guidance", "much", "guidance was given as 'much'"),
        ("#steps", "9000", "9000 is too much"),
        ("#num_images", "65", "65 pictures were asked for"),
    ):
        usual = held(page, f"{css} input, {css} textarea")
        page.write(css, value)
        wrong(message, css)
        page.write(css, usual if css != "#seed" else "0")
    page.choose("#artifact-0", "jedi-tiny")
    wrong("no reference picture", ".field-reference")
    page.upload("#recipe", studio.root / "unicorn" / "0.png")
    page.until("#draw-told", "'0.png' carries no recipe")
    page.click("#compare button")
    page.write("#values-x", "0, b", key=Keys.ESCAPE)
    refused(page, "#draw-grid", "#grid-told", "'b' is no number", "#values-x")
    page.write("#values-x", ",".join(map(str, range(50))), key=Keys.ESCAPE)
    refused(page, "#draw-grid", "#grid-told", "100 cells; 64 are allowed", "#values-x")
    assert jobs.queue() == []


FOCUSED = """
const e = document.activeElement, s = getComputedStyle(e), box = e.closest('.block[id], button[id]');
return [box ? box.id : '', s.outlineStyle !== 'none' || s.borderColor === 'rgb(61, 108, 240)'];
"""
"""Where the focus is, and whether it can be seen: by an outline, or by the accent on a field's border."""


def test_the_keyboard_goes_from_field_to_field_and_enter_draws(page: Browser, studio: Studio, jobs: Jobs):
    page.open(f"{studio.address}/?view=sample")
    page.find("#prompt textarea").click()
    seen = [page.driver.execute_script(FOCUSED)]
    for _ in range(6):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(page.driver.execute_script(FOCUSED))
    places = ["prompt", "negative", "draw", "num_images", "seed", "steps", "guidance"]
    assert seen == [[place, True] for place in places]
    page.write("#prompt", "a fox", key=Keys.ENTER)
    job = wait(jobs.queue, "a job")[0]
    assert job.payload["request"]["prompt"] == ["a fox"]


def test_a_run_that_stopped_early_is_exported_from_its_checkpoint(page: Browser, studio: Studio, jobs: Jobs):
    recorded(str(studio.root / "runs"), "early", 3)
    (studio.root / "runs" / "early" / "checkpoints" / "step-00000003").mkdir(parents=True)
    page.open(f"{studio.address}/?view=shelf")
    page.until("#models", "runs/early\\s+not exported")
    page.choose("#artifact", "runs/early")
    page.until("#tabs", "early: not exported")
    page.click("#export")
    job = wait(jobs.queue, "a job")[0]
    assert (job.kind, job.payload["run"]) == ("export", str(studio.root / "runs" / "early"))


def test_an_artifact_tells_of_itself_and_moves_to_the_trash(page: Browser, studio: Studio):
    header = json.dumps({"__metadata__": {"modelspec.trigger_phrase": "zwx cat"}}).encode()
    (studio.root / "models").mkdir()
    (studio.root / "models" / "cat.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    page.open(f"{studio.address}/?view=shelf")
    page.click("#export")
    page.until("#export-told", "Choose an artifact first")
    page.choose("#artifact", "models/cat.safetensors")
    page.until("#tabs", "zwx cat")
    refused(page, "#export", "#export-told", "only runs can be exported again", "#artifact")
    page.click("#discard-artifact")
    page.until("#export-told", "Moved to")
    assert not (studio.root / "models" / "cat.safetensors").exists()
    assert list((studio.root / ".studio" / "trash").glob("*cat.safetensors"))


def test_an_evaluation_names_the_field_that_is_missing(page: Browser, studio: Studio, jobs: Jobs):
    page.open(f"{studio.address}/?view=evaluate")
    refused(page, "#measure", "#evaluation-told", "Artifact is missing", "#eval-artifact")
    page.choose("#eval-artifact", "nothing")
    page.choose("#eval-data", "unicorn")
    refused(page, "#measure", "#evaluation-told", "Artifact 'nothing' does not exist", "#eval-artifact")
    page.choose("#eval-artifact", "jedi-tiny")
    page.write("#eval-num_images", "0")
    refused(page, "#measure", "#evaluation-told", "num_images was given as 0", "#eval-num_images")
    assert jobs.queue() == []

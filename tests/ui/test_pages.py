"""The pieces behind the pages: forms from settings, drafts, the jail, uploads, records, curves."""

import io
import json
import shlex
import time
import zipfile
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image

from studio import assets, catalog, flags, runs, serial, trained
from studio.config import Loop, Run
from studio.errors import StudioError
from studio.jobs import Process
from studio.runs import EventLog
from trainers.dreambooth.config import DreamBooth
from ui import captions, charts, drafts, forms, parts, records, requests, uploads
from ui.config import App
from ui.guard import check_request
from ui.shelf import metadata
from ui.workspace import Workspace

METHODS = [name for _, name in drafts.methods()]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path)


def picture(path: Path, size: tuple[int, int] = (32, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)
    return path


def filled(method: str, workspace: Workspace, **changes) -> dict:
    """What the form of a method holds after a person chose a folder and changed some values."""
    picture(workspace.root / "photos" / "a.png")
    values = serial.merge(drafts.base(method, "auto"), serial.nest(changes))
    if values["method"].get("data") == "":
        values["method"]["data"] = "photos"
    if "prompts" in values["method"] and not values["method"]["prompts"]:
        values["method"]["prompts"] = ["a red star"]
    fields = drafts.fields(method, values)
    boxes = [forms.draw(leaf) for leaf in fields]
    found = forms.collect(fields, [box.value for box in boxes])
    found["method"]["kind"] = method
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_form_gives_back_the_settings_it_was_drawn_from(method: str, workspace: Workspace):
    run = drafts.build(filled(method, workspace), workspace)
    assert catalog.card_of(run.method).name == method
    name = catalog.card(method).preset_for(str(serial.to_dict(run.method).get("model", "")))
    usual = serial.nest(dict(catalog.card(method).presets[name].values)) if name else {}
    given = {k: v for k, v in serial.flatten(runs.dump(run)).items() if k in serial.flatten(usual)}
    assert given == {k: v for k, v in serial.flatten(usual).items() if k in given}


@pytest.mark.parametrize("method", METHODS)
def test_the_command_shown_does_what_the_form_does(method: str, workspace: Workspace):
    run = drafts.build(filled(method, workspace, **{"loop.steps": 17, "optim.lr": 3e-4}), workspace)
    words = shlex.split(drafts.command(run))
    again, _ = flags.parse_run(method, words[3:])
    assert serial.differences(runs.dump(run), runs.dump(again)) == []


def test_every_field_has_help_and_a_label():
    fields = drafts.fields("dreambooth", drafts.base("dreambooth", "auto"))
    silent = [leaf.name for leaf in fields if not leaf.help]
    assert [name for name in silent if name.startswith("method.") and name.count(".") == 1] == []
    assert {leaf.name: leaf.label for leaf in fields}["optim.lr"] == "Learning rate"


def test_bounds_and_choices_come_from_the_class():
    fields = {leaf.name: leaf for leaf in drafts.fields("dreambooth", drafts.base("dreambooth", "auto"))}
    assert fields["loop.steps"].bounds == "≥ 1"
    assert fields["optim.ema"].bounds == "≥ 0 < 1"
    assert fields["method.adapter.kind"].schema["enum"][0] == "lora"
    assert isinstance(forms.draw(fields["hardware.precision"]), gr.Radio)


def test_another_alternative_brings_its_own_fields():
    values = serial.merge(drafts.base("dreambooth", "auto"), {"method": {"adapter": {"kind": "full"}}})
    names = {leaf.name for leaf in drafts.fields("dreambooth", values)}
    assert "method.adapter.rank" not in names


def test_the_simple_view_has_five_fields():
    for method in METHODS:
        fields = drafts.fields(method, drafts.base(method, "auto"))
        assert len(drafts.simple(fields)) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loop.steps": 0}, "greater than or equal to 1"),
        ({"method.data": ""}, "Data is missing"),
        ({"method.data": "/etc"}, "outside of the allowed folder"),
        ({"method.data": "../elsewhere"}, "outside of the allowed folder"),
        ({"method.held_out": "~/photos"}, "outside of the allowed folder"),
        ({"optim.name": "os.system"}, "would run code"),
        ({"name": "../up"}, "outside of the allowed folder"),
        ({"name": "a/b"}, "plain name without a slash"),
        ({"method.nonsense": 1}, "Unknown setting"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_with_a_sentence(change: dict, message: str, workspace: Workspace):
    values = serial.merge(filled("dreambooth", workspace), serial.nest(change))
    with pytest.raises(StudioError, match=message):
        drafts.build(values, workspace)


def test_a_link_out_of_the_workspace_is_refused(workspace: Workspace):
    (workspace.root / "way-out").symlink_to("/etc")
    values = serial.merge(filled("dreambooth", workspace), {"method": {"data": "way-out"}})
    with pytest.raises(StudioError, match="outside of the allowed folder"):
        drafts.build(values, workspace)


def test_a_list_that_cannot_be_read_names_its_field():
    leaf = next(each for each in forms.leaves(Run, {"method": {}}) if each.name == "optim.betas")
    with pytest.raises(StudioError, match="write a list as"):
        forms.parse(leaf, "[0.9, ")


def test_the_embedded_samples_can_be_chosen(workspace: Workspace):
    assert workspace.relative(assets.path("samples/unicorn")) in workspace.picture_folders()


def test_nothing_is_deleted_for_good(workspace: Workspace):
    kept = workspace.discard(picture(workspace.runs / "a" / "x.png").parent)
    assert (kept / "x.png").is_file()
    with pytest.raises(StudioError, match="cannot be removed"):
        workspace.discard(workspace.runs)
    with pytest.raises(StudioError, match="outside"):
        workspace.discard("/etc")


def test_uploads_become_a_folder_with_plain_names(workspace: Workspace, tmp_path: Path):
    picture(tmp_path / "in" / "my dog!.png")
    (tmp_path / "in" / "my dog!.txt").write_text("a dog")
    made = uploads.store(sorted((tmp_path / "in").iterdir()), workspace, App(), "../dogs")
    assert sorted(path.name for path in made.iterdir()) == ["my dog_.png", "my dog_.txt"]
    assert made.parent == workspace.uploads


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    return path


def test_an_archive_cannot_write_elsewhere(workspace: Workspace, tmp_path: Path):
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    file = archive(tmp_path / "a.zip", {"../../evil.png": data.getvalue(), "/abs/other.png": data.getvalue()})
    made = uploads.store([file], workspace, App())
    assert sorted(path.name for path in made.iterdir()) == ["evil.png", "other.png"]


@pytest.mark.parametrize(
    ("members", "limits", "message"),
    [
        ({"bomb.png": b"0" * 9_000_000}, {"upload_mb": 1}, "allowed are"),
        ({f"{i}.txt": b"a" for i in range(9)}, {"upload_files": 5}, "unpacks to 9 files"),
        ({"a.png": b"no picture"}, {}, "cannot be read as a picture"),
        ({"a.txt": b"words"}, {}, "no picture among the files"),
        ({"a.exe": b"MZ"}, {}, "no picture among the files"),
    ],
)
def test_bad_archives_leave_nothing_behind(
    members: dict, limits: dict, message: str, workspace: Workspace, tmp_path: Path
):
    with pytest.raises(StudioError, match=message):
        uploads.store([archive(tmp_path / "a.zip", members)], workspace, App(**limits))
    assert list(workspace.uploads.iterdir()) == []


def test_a_picture_with_too_many_pixels_is_refused(workspace: Workspace, tmp_path: Path):
    with pytest.raises(StudioError, match="megapixels"):
        uploads.store([picture(tmp_path / "big.png", (1200, 1200))], workspace, App(upload_megapixels=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": ["a"] * 40}, "40 prompts; 32 are allowed"),
        ({"prompt": ["a" * 3000]}, "3000 characters"),
        ({"num_images": 100}, "100 pictures"),
        ({"steps": 10_000}, "steps 10000 is too much"),
        ({"width": 100_000}, "width 100000 is too much"),
    ],
)
def test_requests_that_are_too_large_are_refused(change: dict, message: str):
    usual = {"prompt": ["a"], "negative": "", "num_images": 1, "steps": 20, "width": 0, "height": 0}
    with pytest.raises(StudioError, match=message):
        check_request(usual | change)


def test_an_open_address_needs_a_password():
    with pytest.raises(StudioError, match="give --auth NAME:PASSWORD"):
        App(host="0.0.0.0")
    with pytest.raises(StudioError, match="8 characters"):
        App(auth="anna:short")
    assert App(host="0.0.0.0", auth="anna:long enough").host == "0.0.0.0"


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


def test_a_caption_is_written_beside_its_picture(tmp_path: Path):
    path = picture(tmp_path / "a.png")
    captions.write(path, " a dog ")
    assert (tmp_path / "a.txt").read_text() == "a dog\n"
    with pytest.raises(StudioError, match="4000 are allowed"):
        captions.write(path, "a" * 5000)


def test_a_caption_in_a_table_is_changed_there(tmp_path: Path):
    path, table = picture(tmp_path / "a.png"), tmp_path / "metadata.jsonl"
    table.write_text('{"file_name": "a.png", "text": "old", "x": 1}\n{"file_name": "b.png", "text": "b"}\n')
    captions.write(path, "new\nwords")
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert rows == [{"file_name": "a.png", "text": "new words", "x": 1}, {"file_name": "b.png", "text": "b"}]


def test_metadata_is_read_from_the_header_alone(tmp_path: Path):
    header = json.dumps({"__metadata__": {"modelspec.title": "x"}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert metadata(tmp_path / "a.safetensors") == {"modelspec.title": "x"}
    (tmp_path / "b.safetensors").write_bytes((10**12).to_bytes(8, "little") + header)
    assert metadata(tmp_path / "b.safetensors") == {}


def test_times_are_told_as_people_say_them():
    assert [parts.duration(s) for s in (5, 600, 9000)] == ["5 s", "10 min", "2.5 h"]
    assert parts.since(time.time() - 3) == "for 3 s"


def asked(workspace: Workspace, **given) -> dict:
    """The request that the Sample page makes of one artifact and some reference pictures."""
    plain = ["a fox", "", 1, 0, 2, 1.0, "", 0, 0, "studio-tiny"]
    names = [given.get("artifact", ""), None, None]
    return requests.build(workspace, [*plain, *names, 1.0, 1.0, 1.0, given.get("references", [])], [])


def test_a_request_keeps_its_reference_pictures(workspace: Workspace):
    reference = picture(workspace.uploads / "references" / "a.png")
    assert asked(workspace, references=[str(reference)])["reference"] == [str(reference)]


def test_reference_pictures_from_outside_are_refused(workspace: Workspace):
    with pytest.raises(StudioError, match="lies outside of the allowed folder"):
        asked(workspace, references=["/etc/hostname"])


def test_a_folder_of_a_methods_own_weights_is_offered_once(workspace: Workspace):
    folder = workspace.root / "models" / "mine"
    trained.write(folder, method="dreambooth", model="studio-tiny", settings={})
    (folder / "weights.safetensors").write_bytes(b"")
    assert [name for name in workspace.artifacts() if name.startswith("models")] == ["models/mine"]
    assert asked(workspace, artifact="models/mine")["artifact"] == [str(folder)]

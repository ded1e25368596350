"""The Sample page: what its fields ask for, and what is refused before a job starts."""

import pytest

from studio.errors import StudioError
from studio.records import trained
from tests.ui.conftest import picture
from ui import requests
from ui.guard import check_request
from ui.workspace import Workspace


def asked(workspace: Workspace, **given) -> dict:
    """The request that the Sample page makes of one artifact and some reference pictures."""
    plain = ["a fox", "", 1, 0, 2, 1.0, "", 0, 0, "studio-tiny"]
    names = [given.get("artifact", ""), None, None]
    held = [*plain, *names, 1.0, 1.0, 1.0, given.get("references", [])]
    return given.get("by", requests.build)(workspace, held, [])


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


def test_an_artifact_that_looks_at_references_is_refused_without_them(workspace: Workspace):
    with pytest.raises(StudioError, match="no reference picture, and jedi draws what references show"):
        asked(workspace, artifact="jedi-tiny", by=requests.drawing)
    reference = str(picture(workspace.uploads / "references" / "a.png"))
    drawn = asked(workspace, artifact="jedi-tiny", references=[reference], by=requests.drawing)
    assert drawn["reference"] == [reference]


@pytest.mark.parametrize(
    ("artifact", "name", "message"),
    [
        ("", "a.png", "looks at reference pictures"),
        ("jedi-tiny", "song.png", "Cannot use reference"),
        ("jedi-tiny", "gone.png", "Cannot use reference"),
    ],
)
def test_references_that_cannot_be_used_are_refused(
    artifact: str, name: str, message: str, workspace: Workspace
):
    picture(workspace.uploads / "a.png")
    (workspace.uploads / "song.png").write_text("la")
    with pytest.raises(StudioError, match=message) as refused:
        asked(workspace, artifact=artifact, references=[str(workspace.uploads / name)], by=requests.drawing)
    assert refused.value.field == "reference"


@pytest.mark.parametrize(
    ("sides", "field", "message"),
    [
        ([("steps", "2, b"), ("", "")], "values-x", "'b' is no number"),
        ([("steps", "2"), ("seed", "0, -1")], "values-y", "seed was given as -1"),
        ([("steps", "2, 9000"), ("", "")], "values-x", "steps 9000 is too much"),
        ([("steps", " "), ("", "")], "values-x", "has no values"),
        ([("strength", "0, 1"), ("", "")], "axis-x", "No artifact is chosen"),
        ([("seed", "0"), ("edit strength", "0, 1")], "axis-y", "No edit is switched on"),
        ([("artifact", "jedi-tiny"), ("", "")], "reference", "no reference picture"),
        (
            [("seed", ",".join(map(str, range(40)))), ("steps", "1, 2")],
            "values-x",
            "80 cells; 64 are allowed",
        ),
        ([("seed", "0"), ("seed", "1")], "axis-y", "choose two different ones"),
    ],
)
def test_a_grid_that_cannot_be_drawn_is_refused_at_its_field(
    sides: list, field: str, message: str, workspace: Workspace
):
    with pytest.raises(StudioError, match=message) as refused:
        requests.compare(workspace, asked(workspace), sides)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("model", "numbers"),
    [
        ("klein-4b", {"steps": "4", "guidance": "1", "width": "1024", "height": "1024"}),
        ("tiny:sdxl", {"steps": "20", "guidance": "4"}),
        ("", {}),
        ("sdlx", {}),
        ("/etc", {}),
        ("mine.py:load", {}),
    ],
)
def test_the_numbers_of_a_models_card_are_told_before_it_is_drawn_with(model, numbers, workspace: Workspace):
    assert requests.own_numbers(workspace, model) == numbers

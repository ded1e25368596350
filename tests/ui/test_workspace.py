"""The folder that the app works in: its jail, uploads, the trash, and who may open the page."""

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from studio import assets
from studio.errors import StudioError
from tests.ui.conftest import picture
from ui import uploads
from ui.config import App
from ui.workspace import Workspace


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


def test_an_open_address_needs_a_password():
    with pytest.raises(StudioError, match="give --auth NAME:PASSWORD"):
        App(host="0.0.0.0")
    with pytest.raises(StudioError, match="8 characters"):
        App(auth="anna:short")
    assert App(host="0.0.0.0", auth="anna:long enough").host == "0.0.0.0"


def test_parts_of_a_model_are_not_offered_as_artifacts(workspace: Workspace):
    for name in (
        "models/whole/model_index.json",
        "models/whole/unet/model.safetensors",
        "models/lora.safetensors",
    ):
        (workspace.root / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace.root / name).write_text("{}")
    assert [name for name in workspace.artifacts() if name.startswith("models")] == [
        "models/lora.safetensors"
    ]

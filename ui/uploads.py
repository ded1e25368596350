"""Uploaded pictures: counted, measured and decoded before they become a data folder."""

import io
import re
import shutil
import time
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from studio.data.layouts import CAPTION_EXTENSIONS, EXTENSIONS
from studio.errors import StudioError
from ui.config import App
from ui.workspace import Workspace


def store(files: Sequence[str | Path], workspace: Workspace, limits: App, name: str = "") -> Path:
    """Copy uploaded pictures, captions and archives of them into a new data folder.

    Raises:
        StudioError: There are too many, one is too large or is no picture, or an archive is a bomb. Nothing is kept.
    """
    folder = _new_folder(workspace, name)
    try:
        count = 0
        for file_name, data in _members([Path(file) for file in files], limits):
            count += _keep(folder, file_name, data, limits)
            if count > limits.upload_files:
                raise StudioError(
                    f"There are more than {limits.upload_files} files; upload fewer.", field="data"
                )
        if not any(path.suffix.lower() in EXTENSIONS for path in folder.iterdir()):
            raise StudioError("There is no picture among the files; upload PNG, JPEG or WebP.", field="data")
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def _new_folder(workspace: Workspace, name: str) -> Path:
    plain = re.sub(r"[^\w-]+", "-", name).strip("-")[:40] or time.strftime("pictures-%Y%m%d-%H%M%S")
    names = [plain, *(f"{plain}-{number}" for number in range(2, 1000))]
    folder = next(workspace.uploads / each for each in names if not (workspace.uploads / each).exists())
    folder.mkdir(parents=True)
    return folder


def _members(files: Sequence[Path], limits: App) -> Iterator[tuple[str, bytes]]:
    for file in files:
        if file.suffix.lower() == ".zip":
            yield from _unzipped(file, limits)
        else:
            yield file.name, _limited(file.stat().st_size, file.name, limits) or file.read_bytes()


def _unzipped(file: Path, limits: App) -> Iterator[tuple[str, bytes]]:
    """What an archive holds, never written by the names in it, read no further than it says."""
    try:
        with zipfile.ZipFile(file) as archive:
            inside = [entry for entry in archive.infolist() if not entry.is_dir()]
            total = sum(entry.file_size for entry in inside)
            if len(inside) > limits.upload_files or total > 4 * limits.upload_mb * 1e6:
                raise StudioError(
                    f"{file.name} unpacks to {len(inside)} files of {total / 1e6:.0f} MB; allowed are "
                    f"{limits.upload_files} of {4 * limits.upload_mb} MB.",
                    field="data",
                )
            for entry in inside:
                _limited(entry.file_size, entry.filename, limits)
                with archive.open(entry) as opened:
                    yield PurePosixPath(entry.filename).name, opened.read(entry.file_size)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise StudioError(f"{file.name} is not a readable archive ({error}).", field="data") from None


def _limited(size: int, name: str, limits: App) -> None:
    if size > limits.upload_mb * 1e6:
        raise StudioError(f"{name} has {size / 1e6:.0f} MB; {limits.upload_mb} are allowed.", field="data")


def _keep(folder: Path, name: str, data: bytes, limits: App) -> int:
    """Write one file under a plain name; gives 1 if it was kept. What is neither picture nor caption is left out."""
    path = Path(re.sub(r"[^\w .()-]+", "_", name).lstrip(". "))
    suffix = path.suffix.lower()
    if suffix in CAPTION_EXTENSIONS:
        (folder / path.name).write_text(data[:20_000].decode("utf-8", "replace"), encoding="utf-8")
        return 1
    if suffix not in EXTENSIONS:
        return 0
    _check_picture(name, data, limits)
    (folder / path.name).write_bytes(data)
    return 1


def _check_picture(name: str, data: bytes, limits: App) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as picture:
                pixels = picture.width * picture.height
                if pixels > limits.upload_megapixels * 1e6:
                    raise StudioError(
                        f"{name} has {pixels / 1e6:.0f} megapixels; {limits.upload_megapixels} are allowed.",
                        field="data",
                    )
                picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise StudioError(f"{name} cannot be read as a picture ({error}).", field="data") from None

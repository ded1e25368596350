"""What of a folder of pictures is left out, and why, so that it can be told."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

MASK_FOLDERS = frozenset({"masks", "mask"})
SPLITS = frozenset(
    {"train", "training", "val", "valid", "validation", "test", "images", "img", "image", "data"}
)
"""Folder names that say how data is split or stored, not what is seen."""
_REGULARIZATION = frozenset({"reg", "regularization", "regularisation"})
_SYSTEM = frozenset({"@eadir", "#recycle", "__macosx", "thumbs.db", "desktop.ini"})
"""Folders and files that systems leave in folders of pictures; in lower case."""
_OTHERS = frozenset(
    {".psd", ".svg", ".pdf", ".eps", ".ai", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".exr", ".hdr"}
    | {".jxl", ".jp2", ".ico", ".tga", ".mp4", ".mov", ".avi", ".mkv", ".webm", ".zip", ".rar", ".7z", ".tar", ".gz"}
)  # fmt: skip
"""What holds pictures of a kind, and is not read here."""
_NAMED = 3
"""Names told of what is left out."""


def told(reason: str, names: tuple[str, ...]) -> str:
    """What is left out for a reason, as a line of text."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"left out, {reason}: {', '.join(names[:_NAMED])}{more}"


class Beside:
    """The pictures of one folder, by whose names other files are judged."""

    def __init__(self, pictures: Iterable[Path], suffixes: tuple[str, ...]) -> None:
        names = list(pictures)
        self._suffixes, self._stems = suffixes, {path.stem for path in names}
        self._near = {_folded(name) for path in names for name in (path.name, path.stem)}

    def why(self, path: Path) -> str:
        """Why a file is left out that a person may have meant; empty if it is taken, or nothing to do with pictures."""
        suffix = path.suffix.lower()
        if path.name.startswith(".") or path.name.lower() in _SYSTEM:
            return ""
        if suffix in _OTHERS:
            return "formats that are not read"
        fits = path.suffix in self._suffixes and path.stem in self._stems
        if suffix in self._suffixes and not fits and _folded(path.stem) in self._near:
            return f"captions whose names do not fit their picture's (NAME{self._suffixes[0]})"
        return ""


def _folded(name: str) -> str:
    """A name as it is the same in capitals and in every Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


def why_folder(path: Path, folders: list[Path], beside_pictures: bool) -> str:
    """Why a folder is not looked into; empty if it is."""
    name = path.name.lower()
    if name in _SYSTEM:
        return "folders of the system"
    if path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve()):
        return "links back to where they lie"
    stored = [each for each in folders if each.name.lower() in SPLITS]
    if name in MASK_FOLDERS and (beside_pictures or stored):
        return "folders of masks, which are read with their pictures"
    if name in _REGULARIZATION and stored:
        return "class pictures of kohya's layout (--prior folder-prior takes them)"
    return ""

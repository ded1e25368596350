"""Which pictures a folder holds, and what its layout says of them, without being told which layout it is.

Known: bare pictures; captions beside them (`NAME.txt`, `NAME.caption`); `metadata.jsonl|csv|parquet` (Hugging Face
imagefolder); `N_token class` folders (kohya); class folders; masks (`NAME-masklabel.png`, `masks/NAME.png`).
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from studio.data import tables
from studio.errors import StudioError

_COMMON = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".avif",
    ".ppm",
    ".pgm",
)
EXTENSIONS = frozenset({*_COMMON, ".heic", ".heif"})
"""What looks like a picture. HEIC is among them so that it is reported and not silently left out."""
CAPTION_EXTENSIONS = (".txt", ".caption")
MASK_SUFFIX = "-masklabel"
MASK_FOLDERS = frozenset({"masks", "mask"})
SPLITS = frozenset(
    {"train", "training", "val", "valid", "validation", "test", "images", "img", "image", "data"}
)
"""Folder names that say how data is split or stored, not what is seen."""
_KOHYA = re.compile(r"^(?P<repeats>\d+)_(?P<words>.+)$")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One picture and what its folder says of it."""

    path: Path
    caption: str = ""
    mask: Path | None = None
    repeats: int = 1
    token: str = ""
    class_name: str = ""


@dataclass(frozen=True)
class Summary:
    """What was found, counted."""

    folder: Path
    num_images: int
    num_captions: int
    num_masks: int
    num_repeated: int
    layouts: dict[str, int]
    classes: dict[str, int]

    def lines(self) -> list[str]:
        """The counts as lines of text."""
        layouts = ", ".join(f"{name} ({count})" for name, count in self.layouts.items())
        captions, masks = counted(self.num_captions, "caption"), counted(self.num_masks, "mask file")
        lines = [
            f"{counted(self.num_images, 'picture')} in {self.folder}: {layouts}",
            f"{captions}, {masks}, {counted(self.num_repeated, 'example')} with repeats",
        ]
        if self.classes:
            shown = ", ".join(f"{name} ({count})" for name, count in list(self.classes.items())[:12])
            more = f" and {len(self.classes) - 12} more" if len(self.classes) > 12 else ""
            number = "1 class" if len(self.classes) == 1 else f"{len(self.classes)} classes"
            lines.append(f"{number} by folder or table: {shown}{more}")
        return lines


@dataclass(frozen=True)
class Found:
    """The pictures of a folder in the order of their paths, and the count of what was found."""

    records: tuple[Record, ...]
    summary: Summary


def counted(number: int, what: str) -> str:
    """A number of things in words: `1 picture`, `2 pictures`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def is_image(path: Path) -> bool:
    """Whether the name is that of a visible picture file."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def find(folder: str | Path, extension: str = "auto") -> Found:
    """All pictures below a folder, with captions, masks, repeats and classes.

    Args:
        folder: Where to look.
        extension: Extension of caption files; `auto` takes .txt, then .caption.

    Raises:
        StudioError: If the folder is missing or holds no pictures, or a table or caption in it cannot be read.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise StudioError(f"Data folder {str(root)!r} {what}; give a folder with pictures.", field="data")
    suffixes = CAPTION_EXTENSIONS if extension == "auto" else (f".{extension.lstrip('.')}",)
    found = list(_walk(root, root, suffixes))
    if not found:
        kinds = ", ".join(sorted(EXTENSIONS))
        raise StudioError(
            f"Data folder {str(root)!r} holds no pictures; put some there ({kinds}).", field="data"
        )
    records = tuple(record for record, _ in found)
    return Found(records, _summarize(root, records, Counter(layout for _, layout in found)))


def _summarize(root: Path, records: tuple[Record, ...], layouts: Counter[str]) -> Summary:
    return Summary(
        folder=root,
        num_images=len(records),
        num_captions=sum(bool(record.caption) for record in records),
        num_masks=sum(record.mask is not None for record in records),
        num_repeated=sum(record.repeats for record in records),
        layouts=dict(layouts.most_common()),
        classes=dict(Counter(record.class_name for record in records if record.class_name)),
    )


def _walk(folder: Path, root: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[Record, str]]:
    """Records of a folder and of those below it, with the name of their layout."""
    table = tables.table_of(folder)
    if table is not None:
        for record in _from_table(table):
            yield record, f"table {table.name}"
        return
    entries = sorted(folder.iterdir())
    for path in entries:
        if path.is_file() and is_image(path) and not path.stem.endswith(MASK_SUFFIX):
            yield _beside(path, root, suffixes)
    for path in entries:
        if _holds_more(path):
            yield from _walk(path, root, suffixes)


def _holds_more(path: Path) -> bool:
    """Whether a folder is to be looked into: no hidden one, no masks, and no link back to where it lies."""
    if not path.is_dir() or path.name.startswith(".") or path.name.lower() in MASK_FOLDERS:
        return False
    return not path.is_symlink() or not path.parent.resolve().is_relative_to(path.resolve())


def _beside(path: Path, root: Path, suffixes: tuple[str, ...]) -> tuple[Record, str]:
    """What the neighbors and the folder of a picture say of it."""
    caption = _caption(path, suffixes)
    record = Record(path=path, caption=caption, mask=_mask(path))
    layout = "captions beside" if caption else "bare pictures"
    if path.parent == root or path.parent.name.lower() in SPLITS:
        return record, layout
    if kohya := _KOHYA.match(path.parent.name):
        first, _, rest = kohya["words"].strip().partition(" ")
        token, class_name = (first, rest.strip()) if rest.strip() else ("", first)
        record = replace(record, repeats=max(int(kohya["repeats"]), 1), token=token, class_name=class_name)
        return record, f"kohya folders, {layout}"
    return replace(record, class_name=path.parent.name), f"class folders, {layout}"


def _caption(path: Path, suffixes: tuple[str, ...]) -> str:
    """The text of the first caption file beside a picture, on one line; empty if there is none."""
    for suffix in suffixes:
        file = path.with_suffix(suffix)
        if file.is_file():
            return " ".join(tables.read_text(file).split())
    return ""


def _mask(path: Path) -> Path | None:
    """The mask file of a picture, if any."""
    candidates = [path.with_name(f"{path.stem}{MASK_SUFFIX}{suffix}") for suffix in (".png", ".jpg", ".webp")]
    for folder in sorted(MASK_FOLDERS):
        candidates += [path.parent / folder / f"{path.stem}{suffix}" for suffix in (".png", ".jpg", ".webp")]
    return next((file for file in candidates if file.is_file()), None)


def _from_table(table: Path) -> Iterator[Record]:
    """Records named by a metadata table."""
    for row in tables.rows(table):
        path = table.parent / row.file_name
        mask = table.parent / row.mask if row.mask else _mask(path)
        yield Record(path=path, caption=row.caption, mask=mask, class_name=row.class_name)

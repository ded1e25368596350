"""Which pictures a folder holds, and what its layout says of them, without being told which layout it is.

Known: bare pictures; captions beside them (`NAME.txt`, `NAME.caption`); `metadata.jsonl|csv|parquet` (Hugging Face
imagefolder); `N_token class` folders (kohya), without their `reg` beside `img`; class folders; masks (`NAME-masklabel.png`, `masks/NAME.png`).
A name alone means nothing: numbers repeat where all folders beside have one and none is a year, `mask` holds masks where
pictures lie beside it. What is left out is told.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from studio.data import left_out, tables
from studio.data.files import is_file, read_text
from studio.data.left_out import MASK_FOLDERS, SPLITS
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
_KOHYA = re.compile(r"^(?P<repeats>\d+)_(?P<words>.+)$")
_YEARS = range(1900, 2100)


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
    left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Why files and folders were left out, and which."""

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
        return [*lines, *(left_out.told(*each) for each in self.left_out.items())]


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
    walk = _Walk(root, suffixes)
    found = list(walk(root))
    if not found:
        kinds = ", ".join(sorted(EXTENSIONS))
        raise StudioError(
            f"Data folder {str(root)!r} holds no pictures; put some there ({kinds}).", field="data"
        )
    records = tuple(record for record, _ in found)
    summary = _summarize(root, records, Counter(layout for _, layout in found))
    return Found(
        records, replace(summary, left_out={why: tuple(names) for why, names in walk.left_out.items()})
    )


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


class _Walk:
    """One look through a folder and those below it; notes what is left out, by reason."""

    def __init__(self, root: Path, suffixes: tuple[str, ...]) -> None:
        self._root, self._suffixes = root, suffixes
        self.left_out: dict[str, list[str]] = {}

    def __call__(self, folder: Path, *, repeats: bool = False) -> Iterator[tuple[Record, str]]:
        """Records with the name of their layout. `repeats`: whether the number in the folder's name says how often."""
        if table := tables.table_of(folder):
            yield from self._from_table(table)
            return
        entries = sorted(folder.iterdir())
        pictures = [p for p in entries if p.is_file() and is_image(p) and not p.stem.endswith(MASK_SUFFIX)]
        for path in pictures:
            yield _beside(path, self._root, self._suffixes, repeats=repeats)
        beside = left_out.Beside(pictures, self._suffixes)
        for path in entries:
            if path.is_file():
                self._leave(path, beside.why(path))
        folders = [path for path in entries if path.is_dir() and not path.name.startswith(".")]
        kept = [f for f in folders if not self._leave(f, left_out.why_folder(f, folders, bool(pictures)))]
        numbers = _are_repeats(kept)
        for path in kept:
            if not numbers and _KOHYA.match(path.name):
                self._leave(
                    path, "numbers of folders that do not repeat, as one is a year or another has none"
                )
            yield from self(path, repeats=numbers)

    def _leave(self, path: Path, reason: str) -> bool:
        if reason:
            self.left_out.setdefault(reason, []).append(str(path.relative_to(self._root)))
        return bool(reason)

    def _from_table(self, table: Path) -> Iterator[tuple[Record, str]]:
        named: set[Path] = set()
        for record in _from_table(table):
            named.add(record.path)
            yield record, f"table {table.name}"
        for path in sorted(table.parent.iterdir()):
            if is_image(path) and path not in named and not path.stem.endswith(MASK_SUFFIX):
                self._leave(path, f"pictures that {table.name} does not name")


def _are_repeats(folders: list[Path]) -> bool:
    """Whether folders beside one another are kohya's: each that holds pictures says how often, and none a year."""
    named = [_KOHYA.match(path.name) for path in folders if any(map(is_image, path.iterdir()))]
    return bool(named) and all(found and int(found["repeats"]) not in _YEARS for found in named)


def _beside(path: Path, root: Path, suffixes: tuple[str, ...], *, repeats: bool) -> tuple[Record, str]:
    """What the neighbors and the folder of a picture say of it."""
    caption = _caption(path, suffixes)
    record = Record(path=path, caption=caption, mask=_mask(path))
    layout = "captions beside" if caption else "bare pictures"
    if path.parent == root or path.parent.name.lower() in SPLITS:
        return record, layout
    if repeats and (kohya := _KOHYA.match(path.parent.name)):
        first, _, rest = kohya["words"].strip().partition(" ")
        token, class_name = (first, rest.strip()) if rest.strip() else ("", first)
        record = replace(record, repeats=max(int(kohya["repeats"]), 1), token=token, class_name=class_name)
        return record, f"kohya folders, {layout}"
    return replace(record, class_name=path.parent.name), f"class folders, {layout}"


def _caption(path: Path, suffixes: tuple[str, ...]) -> str:
    """The text of the first caption file beside a picture, on one line; empty if there is none."""
    for suffix in suffixes:
        file = path.with_suffix(suffix)
        if is_file(file):
            return " ".join(read_text(file).split())
    return ""


def _mask(path: Path) -> Path | None:
    """The mask file of a picture, if any."""
    candidates = [path.with_name(f"{path.stem}{MASK_SUFFIX}{suffix}") for suffix in (".png", ".jpg", ".webp")]
    for folder in sorted(MASK_FOLDERS):
        candidates += [path.parent / folder / f"{path.stem}{suffix}" for suffix in (".png", ".jpg", ".webp")]
    return next((file for file in candidates if is_file(file)), None)


def _from_table(table: Path) -> Iterator[Record]:
    """Records named by a metadata table."""
    for row in tables.rows(table):
        path = table.parent / row.file_name
        mask = table.parent / row.mask if row.mask else _mask(path)
        yield Record(path=path, caption=row.caption, mask=mask, class_name=row.class_name)

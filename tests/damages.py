"""Ways in which a checkpoint is damaged: by a disk, a copy that broke off, another program. Each changes one folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

STATE, TENSORS, WEIGHTS, MANIFEST = (
    "state.json",
    "state.safetensors",
    "weights.safetensors",
    "manifest.json",
)


def _flip(name: str, at: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[min(int(at * len(data)), len(data) - 1)] ^= 4
        (folder / name).write_bytes(bytes(data))

    return damage


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def _cut(name: str, keep: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(keep * len(data))])

    return damage


def _gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _folder(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def _dangling(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("nowhere")

    return damage


def _told(**changes: object) -> Callable[[Path], None]:
    """A manifest that says something else."""

    def damage(folder: Path) -> None:
        found = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps(found | changes))

    return damage


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


def _swapped(folder: Path) -> None:
    other = folder / "aside"
    (folder / TENSORS).rename(other)
    (folder / WEIGHTS).rename(folder / TENSORS)
    other.rename(folder / WEIGHTS)


KINDS: dict[str, Callable[[Path], None]] = {
    **{f"{name}: a bit at {at:.0%}": _flip(name, at) for name in (WEIGHTS, TENSORS) for at in (0, 0.1, 1)},
    f"{STATE}: a bit": _flip(STATE, 0.5),
    f"{MANIFEST}: a bit of its first byte": _flip(MANIFEST, 0),
    **{f"{name}: gone": _gone(name) for name in (WEIGHTS, TENSORS, STATE, MANIFEST)},
    **{f"{name}: empty": _write(name, b"") for name in (WEIGHTS, TENSORS, STATE, MANIFEST)},
    **{f"{name}: cut off": _cut(name, 0.6) for name in (WEIGHTS, TENSORS, STATE, MANIFEST)},
    **{f"{name}: a folder": _folder(name) for name in (WEIGHTS, MANIFEST)},
    f"{WEIGHTS}: a link to nowhere": _dangling(WEIGHTS),
    "manifest of null": _write(MANIFEST, b"null"),
    "manifest of a list": _write(MANIFEST, b"[]"),
    "manifest of a number": _write(MANIFEST, b"1e999"),
    "manifest without hashes": _told(sha256={}),
    "manifest with hashes of null": _told(sha256=None),
    "manifest with a hash that is a list": _told(sha256={WEIGHTS: [], TENSORS: [], STATE: []}),
    "manifest of another step": _told(step=7),
    "manifest of a step in words": _told(step="twelve"),
    "manifest of another file": _told(sha256={"../../config.json": ""}),
    "manifest in UTF-16": _write(MANIFEST, '{"step": 12}'.encode("utf-16")),
    "manifest of bytes": _write(MANIFEST, bytes(range(256))),
    "manifest too deep": _write(MANIFEST, b"[" * 100_000),
    "an empty folder": _empty,
    "a file": _file,
    "two files swapped": _swapped,
}
"""Name to what it does to the folder of a checkpoint."""

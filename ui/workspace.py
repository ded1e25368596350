"""The folder that the app works in, and the jail around it: nothing outside is read, written or shown."""

import shutil
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from studio import assets
from studio.catalog import methods
from studio.catalog.recognize import is_own
from studio.data.layouts import EXTENSIONS
from studio.errors import StudioError, unknown
from studio.queue.jobs import Jobs, Kind
from studio.queue.supervisor import least_busy
from studio.records import runs, trained
from studio.records.runs import RunFolder
from studio.settings import serial

TEXTS = ("prompt", "prompts", "negative", "class_prompt", "class_word", "token", "undesired", "protect", "carriers",
         "description", "author", "trigger", "license")  # fmt: skip
"""Settings that hold words, never a place."""
_DEPTH = 3
_HIDDEN = ("checkpoints", "export", "samples", "eval", "node_modules")


class Workspace:
    """Runs, samples, uploads and data under one root."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().resolve()
        if not self.root.is_dir():
            raise StudioError(f"Folder {str(root)!r} does not exist; choose another --root.", field="root")
        self.runs, self.samples = self.root / "runs", self.root / "samples"
        self.uploads, self.trash = self.root / "uploads", self.root / ".studio" / "trash"
        self.jobs = Jobs(self.root / ".studio" / "jobs")

    @property
    def open_folders(self) -> tuple[Path, ...]:
        """Folders whose files the page may show."""
        return (self.root, assets.root().resolve())

    def holds(self, path: str | Path) -> bool:
        """Whether a place, links followed, lies inside."""
        given = Path(path).expanduser()
        found = (given if given.is_absolute() else self.root / given).resolve()
        return any(found == folder or folder in found.parents for folder in self.open_folders)

    def inside(self, path: str | Path, field: str = "") -> Path:
        """A place inside, links followed.

        Raises:
            StudioError: It lies outside.
        """
        if "\0" in str(path) or not self.holds(path):
            raise StudioError(
                f"{str(path)!r} lies outside of the allowed folder {str(self.root)!r}; upload it, or move it there.",
                field=field,
            )
        return (self.root / Path(path).expanduser()).resolve()

    def check(self, values: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
        """Refuse settings that name places outside or run a person's own code.

        Args:
            values: Settings as plain values.
            usual: The defaults, which may lie outside (caches in the home folder).

        Raises:
            StudioError: Names the setting.
        """
        before = serial.flatten(usual)
        for name, value in serial.flatten(values).items():
            if name.rpartition(".")[2] in TEXTS or before.get(name) == value:
                continue
            if ":" in name or (
                name.endswith(".custom") and value
            ):  # a term of a mix; one of several from outside
                raise StudioError(f"{name} would run code; only the command takes that.", field=name)
            for text in _strings(value):
                self._check_text(name, text)

    def _check_text(self, name: str, text: str) -> None:
        foreign = name == "optim.name" and ("." in text or ":" in text) and text not in _own_optimizers()
        runs_code = foreign or name.endswith(("reward.function", ".function"))
        runs_code = runs_code or (name.rpartition(".")[2] == "model" and is_own(text))
        if runs_code or (name.endswith("kind") and text in ("user", "custom")):
            raise StudioError(f"{name} {text!r} would run code; only the command takes that.", field=name)
        places = text.startswith(("/", "~", "\\")) or ".." in Path(text).parts or "\0" in text
        if places or (text and len(text) < 4096 and (self.root / text).exists()):
            self.inside(text, field=name)

    def submit(self, kind: Kind, payload: Mapping[str, Any], title: str, *, run: str | Path = "") -> int:
        """Queue a job on the device with the least work; gives its number."""
        device = least_busy(self.jobs)
        return self.jobs.add(kind, payload, title=title, device=device, run=str(run))

    def url(self, path: str | Path) -> str:
        """Address of a file for the page."""
        return f"/gradio_api/file={quote(str(Path(path).resolve()))}"

    def relative(self, path: str | Path) -> str:
        """A place as a person names it: from the root on."""
        found = Path(path).resolve()
        return str(found.relative_to(self.root)) if self.root in found.parents else str(found)

    def run_names(self) -> list[str]:
        """Names of all runs, newest first."""
        return [folder.path.name for folder in runs.list_runs(self.runs)]

    def run(self, name: str) -> RunFolder:
        """A run by name.

        Raises:
            StudioError: There is none.
        """
        if name not in (names := self.run_names()):
            raise unknown("run", str(name), names, field="run")
        return RunFolder(self.runs / name)

    def new_run_name(self, method: str) -> str:
        """A free name for a run, from its method and the time."""
        name = time.strftime(f"{method}-%Y%m%d-%H%M%S")
        taken = {*self.run_names(), *(job.title for job in self.jobs.all(states=("queued", "running")))}
        return next(each for each in (name, *(f"{name}-{i}" for i in range(2, 1000))) if each not in taken)

    def picture_folders(self) -> list[str]:
        """Folders that hold pictures to train on, the embedded samples last."""
        found = sorted({self.relative(path) for path in _folders(self.root, _DEPTH) if has_pictures(path)})
        samples = [path for path in sorted((assets.root() / "samples").iterdir()) if has_pictures(path)]
        return list(dict.fromkeys([*found, *(self.relative(path) for path in samples)]))

    def artifacts(self) -> list[str]:
        """Runs with an export, newest first, weights of one's own, and the embedded ones by name."""
        found = [folder.path for folder in runs.list_runs(self.runs) if any(folder.export.glob("*"))]
        folders = [card.parent for card in (self.root / "models").glob(f"**/{trained.CARD}")]
        files = (self.root / "models").glob("**/*.safetensors")
        whole = {index.parent for index in (self.root / "models").glob("**/model_index.json")}
        left_out = {*folders, *whole}  # a model's own parts are nothing to load on top of one
        own = sorted([*folders, *(file for file in files if not left_out & set(file.parents))])
        return [*(self.relative(path) for path in [*found, *own]), *trained.shipped()]

    def unexported(self) -> list[str]:
        """Runs that stopped with a checkpoint and wrote no export, newest first."""
        found = [
            folder.path
            for folder in runs.list_runs(self.runs)
            if runs.saved(folder.checkpoints) and not any(folder.export.glob("*"))
        ]
        return [self.relative(path) for path in found if not self.jobs.running(path)]

    def weights(self, name: str) -> str:
        """What a request is to name for one of `artifacts`.

        Raises:
            StudioError: It lies outside.
        """
        return name if name in trained.shipped() else str(self.inside(name, "artifact"))

    def artifact(self, path: str) -> str:
        """The name of what a request named, as `artifacts` has it; empty if it lies outside."""
        if path in trained.shipped():
            return path
        return self.relative(path) if self.holds(path) else ""

    def discard(self, path: str | Path) -> Path:
        """Move something into the trash; nothing is deleted for good."""
        found = self.inside(path)
        if found in (self.root, self.runs, self.samples, self.uploads) or self.root not in found.parents:
            raise StudioError(f"{self.relative(found)!r} cannot be removed.", field="path")
        self.trash.mkdir(parents=True, exist_ok=True)
        target = self.trash / f"{time.strftime('%Y%m%d-%H%M%S')}-{found.name}"
        return Path(shutil.move(found, target))


@cache
def _own_optimizers() -> frozenset[str]:
    """Optimizers that presets of the methods name: the studio's own code, so the page may ask for them."""
    cards = map(methods.card, methods.ours())
    return frozenset(str(p.values.get("optim.name", "")) for card in cards for p in card.presets.values())


def has_pictures(folder: Path) -> bool:
    """Whether a folder directly holds pictures."""
    return folder.is_dir() and any(path.suffix.lower() in EXTENSIONS for path in folder.iterdir())


def _folders(root: Path, depth: int) -> Iterator[Path]:
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink() and not path.name.startswith((".", "_")):
            if path.name in _HIDDEN or (path / "config.json").exists() or path.name == "assets":
                continue
            yield path
            if depth > 1:
                yield from _folders(path, depth - 1)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in _strings(each)]
    return [text for each in value for text in _strings(each)] if isinstance(value, (list, tuple)) else []

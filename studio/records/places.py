"""Places that a command names, found or refused before torch is imported."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from studio.catalog import methods, run_folder
from studio.errors import StudioError
from studio.records import runs, trained


def artifact(path: str, field: str = "artifact") -> str:
    """Where an artifact is: as given, under `runs/`, or embedded.

    Raises:
        StudioError: Nothing is there.
    """
    found = next((place for place in (Path(path), run_folder.RUNS / path) if path and place.exists()), None)
    if found is None and trained.find(path) is None:
        raise absent(path, field)
    if found is not None and run_folder.is_run(found):
        _refuse_what_does_not_draw(found, field)
    return path if found is None else str(found)


def folder(path: str, field: str, takes: str = "a folder of pictures") -> Path:
    """A folder that a setting names.

    Args:
        path: As it was given; `~` is the home folder.
        field: The setting.
        takes: What its flag takes, in words.

    Raises:
        StudioError: It is not there.
    """
    found = Path(path).expanduser()
    if not found.is_dir():
        raise StudioError(
            f"Folder {path!r} does not exist; --{field.replace('_', '-')} takes {takes}.", field=field
        )
    return found


def start(path: str, method: str) -> trained.Trained:
    """The trained folder, run, public file or embedded artifact of a method that its training goes on from (`--start`).

    Raises:
        StudioError: Nothing is there, it is not exported, or it is of another method.
    """
    found = trained.find(artifact(path, field="start"))
    if found is None or found.method != method:
        what = "holds no exported weights" if found is None else f"is of {found.method}"
        raise StudioError(
            f"{path} {what}, and training goes on from weights of {method}; give a finished run, what `studio export RUN` "
            "wrote, or an embedded artifact.",
            field="start",
        )
    return found


def _refuse_what_does_not_draw(run: Path, field: str) -> None:
    card = methods.card_of(runs.open_run(run)[1].method)
    if card.offers and "text-to-image" not in card.offers:
        raise StudioError(
            f"Run {run} is of method {card.name}, which trains nothing that draws pictures; give a run of another one.",
            field=field,
        )


def absent(path: str | Path, field: str = "artifact") -> StudioError:
    """What to say when nothing is where an artifact should be."""
    shipped = ", ".join(trained.shipped()) or "none"
    return StudioError(
        f"{path} does not exist; give a run folder or its name under runs/, a .safetensors file, a PEFT folder or the "
        f"name of an embedded artifact ({shipped}).",
        field=field,
    )


_elsewhere: list[Path] = []


@contextlib.contextmanager
def caches_in(folder: Path) -> Iterator[None]:
    """Inside, every cache lies in this folder, whatever the settings say: what is made there is not to be found again."""
    _elsewhere.append(folder)
    try:
        yield
    finally:
        _elsewhere.remove(folder)


def cache(folder: str) -> Path:
    """A folder of what can be made again; `~/.cache` is where the system says that caches lie (XDG_CACHE_HOME)."""
    if _elsewhere:
        return _elsewhere[-1] / Path(folder).name
    path, usual = Path(folder).expanduser(), Path("~/.cache").expanduser()
    own = os.environ.get("XDG_CACHE_HOME", "")
    return Path(own) / path.relative_to(usual) if own and path.is_relative_to(usual) else path

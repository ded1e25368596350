"""Places that a command names, found or refused before torch is imported."""

from pathlib import Path

from studio import trained
from studio.data import layouts
from studio.errors import StudioError

RUNS = Path("runs")
"""Where runs lie that are given by their name alone."""


def artifact(path: str, field: str = "artifact") -> str:
    """Where an artifact is: as given, under `runs/`, or embedded.

    Raises:
        StudioError: Nothing is there.
    """
    if Path(path).exists() or trained.find(path) is not None:
        return path
    if path and (RUNS / path / "config.json").is_file():
        return str(RUNS / path)
    raise absent(path, field)


def absent(path: str | Path, field: str = "artifact") -> StudioError:
    """What to say when nothing is where an artifact should be."""
    shipped = ", ".join(trained.shipped()) or "none"
    return StudioError(
        f"{path} does not exist; give a run folder or its name under runs/, a .safetensors file, a PEFT folder or the "
        f"name of an embedded artifact ({shipped}).",
        field=field,
    )


def pictures(folder: str) -> str:
    """A folder that holds pictures.

    Raises:
        StudioError: It does not exist, is a file, or holds none.
    """
    layouts.find(folder)
    return folder

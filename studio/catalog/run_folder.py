"""A run folder that is given as a model: the whole model that it exported, or the model that it started from. No torch."""

from pathlib import Path

from studio.catalog.component_settings import values

RUNS = Path("runs")
"""Where runs lie that are given by their name alone."""
_FARTHEST = 16
"""Runs that started from runs are followed so far."""


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    return (folder / "config.json").is_file() and (folder / "events.jsonl").is_file()


def find(model: str) -> Path | None:
    """The folder of a run, by its path or its name under `runs/`; None for what is no run."""
    places = (Path(model).expanduser(), RUNS / model)
    return next((place for place in places if is_run(place)), None) if model else None


def before(run: Path) -> str:
    """The model that a run started from, as its settings name it; empty where they do not."""
    method = values(run / "config.json").get("method", {})
    found = method.get("model", "") if isinstance(method, dict) else ""
    return found if isinstance(found, str) else ""  # methods that make theirs anew have settings there


def started_from(model: str) -> str:
    """The model that a run started from, over as many runs as it takes; other names as they are."""
    for _ in range(_FARTHEST):
        run = find(model)
        if run is None or not (base := before(run)) or base == model:
            break
        model = base
    return model


def whole(run: Path) -> list[Path]:
    """Folders of whole models (diffusers) that a run exported: finetuned, or with its adapter merged in."""
    found = (index.parent for index in run.glob("export/**/model_index.json"))
    return sorted(path for path in found if not any(p.startswith(".") for p in path.relative_to(run).parts))

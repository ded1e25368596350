"""A run's trained weights in other formats, from its newest checkpoint."""

import dataclasses
from pathlib import Path
from typing import Any

from studio.adapters.config import Export
from studio.backend.core import Backend
from studio.catalog.run import Run
from studio.contracts.trainer import Trainer
from studio.errors import StudioError
from studio.records import runs
from studio.records.runs import RunFolder
from studio.settings import serial
from studio.training import checkpoint
from studio.training.preparing import Own
from studio.training.session import Session


def export(path: str | Path, *, trainer: type[Trainer] | None = None, **settings: Any) -> list[Path]:
    """Write a run's weights again, as `studio export RUN` does; each file is read back and compared.

        studio.export("runs/dog", formats=("kohya",), precision="fp16")

    Args:
        path: Run folder, or its name under `runs/`.
        trainer: The trainer of your own that the run was begun with.
        settings: Of the export, by name; what is left out is as in the run.

    Returns:
        The files, in the run's `export` folder.

    Raises:
        StudioError: The run has no checkpoint, or its method writes one format of its own and takes no settings.
    """
    folder, run = runs.open_run(path)
    found = export_again(folder, with_settings(run, settings), trainer=trainer)
    return [Path(file) for file in found]


def with_settings(run: Run, changes: dict[str, Any]) -> Run:
    """A run with other settings of its export.

    Raises:
        StudioError: Its method writes one format of its own, or a setting is wrong.
    """
    if not changes:
        return run
    if "export" not in serial.hints(type(run.method)):
        raise StudioError(
            f"The run is of a method that writes one format, its own; leave out {', '.join(changes)}.",
            field="run",
        )
    values = {**serial.to_dict(run.method.export), **{name: serial.plain(v) for name, v in changes.items()}}
    return dataclasses.replace(
        run, method=dataclasses.replace(run.method, export=serial.from_dict(Export, values))
    )


def export_again(folder: RunFolder, run: Run, *, trainer: type[Trainer] | None = None) -> list[str]:
    """Write a run's weights, as its newest checkpoint has them, into its export folder.

    Args:
        folder: Of the run.
        run: Its settings; those of the export may differ from the run's own.
        trainer: The trainer of your own that the run was begun with.

    Raises:
        StudioError: The run has no checkpoint, its newest one is damaged, or the settings do not fit it.
    """
    own = Own(trainer)
    own.refuse_other(folder, "own_trainer")
    path = checkpoint.newest(folder.checkpoints)
    session = Session(run := _whole(run), folder, own.made(run), Backend(run.hardware))
    session.restore(path)
    return session.export()


def _whole(run: Run) -> Run:
    """The run in one process, and what is merged on the model's own weights, not on fewer bits of them."""
    hardware = dataclasses.replace(run.hardware, sharded=False)
    if "export" in serial.hints(type(run.method)) and "merged" in run.method.export.formats:
        hardware = dataclasses.replace(hardware, quantize="none")
    return dataclasses.replace(run, hardware=hardware)

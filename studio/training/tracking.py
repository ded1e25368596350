"""Trackers besides events.jsonl: Trackio, TensorBoard and Weights & Biases as thin adapters.

The run folder's `events.jsonl` is the record; a tracker is a copy for another tool's eyes. Each library is
imported only when asked for.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from typing_extensions import override

from studio.errors import StudioError, unknown
from studio.records.runs import RunFolder

PROJECT = "studio"
"""Project that Trackio and W&B file the runs under."""
_REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


@runtime_checkable
class Tracker(Protocol):
    """Where events go besides the run folder."""

    def log(self, event: Mapping[str, Any]) -> None:
        """Copy the numbers of one event, as `events.jsonl` has it."""
        ...

    def close(self) -> None:
        """Send what is left and end."""
        ...


def chosen(names: Iterable[str]) -> list[str]:
    """The trackers that `names` mean here: `auto` is Trackio where it is installed and stays on this machine."""
    local = importlib.util.find_spec("trackio") is not None and not any(v in os.environ for v in _REMOTE)
    meant = [("trackio" if local else "") if name == "auto" else name for name in names]
    return list(dict.fromkeys(name for name in meant if name))


def tracker(name: str, folder: RunFolder) -> Tracker:
    """The tracker of a run by name: trackio, tensorboard or wandb.

    Raises:
        StudioError: The name is unknown, its library is not installed, or it would send the run away.
    """
    match name:
        case "trackio":
            return Trackio(folder)
        case "tensorboard":
            return TensorBoard(folder)
        case "wandb":
            return WeightsAndBiases(folder)
        case _:
            raise unknown("tracker", name, ("trackio", "tensorboard", "wandb"), field="trackers")


def numbers(event: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an event by name: `loss`, `parts/prior`; those of other events than steps as `kind/name`."""
    kind = str(event["event"])
    prefix = "" if kind == "step" else f"{kind}/"
    left_out = {"event", "time", "step"}
    return dict(_leaves({key: value for key, value in event.items() if key not in left_out}, prefix))


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


class Trackio(Tracker):
    """Trackio's local database; `trackio show --project studio` opens it. Nothing leaves the machine."""

    def __init__(self, folder: RunFolder) -> None:
        for variable in _REMOTE:
            if variable in os.environ:
                raise StudioError(
                    f"{variable} is set, so Trackio would send the run to {os.environ[variable]!r}; Studio tracks "
                    f"locally: unset {variable}, or choose another of --trackers.",
                    field="trackers",
                )
        self._library = _library("trackio", extra="trackio")
        # Its greeting would break `--json` and the progress bar.
        with contextlib.redirect_stdout(io.StringIO()):
            self._run = self._library.init(
                project=PROJECT,
                name=folder.path.name,
                config=_settings(folder),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    @override
    def log(self, event: Mapping[str, Any]) -> None:
        if found := numbers(event):
            self._run.log(found, step=event.get("step"))

    @override
    def close(self) -> None:
        # The run's own finish() would leave it current, to be finished and announced once more at exit.
        with contextlib.redirect_stdout(io.StringIO()):
            self._library.finish()


class TensorBoard(Tracker):
    """TensorBoard files in the run folder; `tensorboard --logdir runs` shows all runs."""

    def __init__(self, folder: RunFolder) -> None:
        _library("tensorboard", extra="tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(log_dir=str(folder.path / "tensorboard"))
        settings = json.dumps(_settings(folder), indent=2)
        self._writer.add_text("config", f"```json\n{settings}\n```", global_step=0)

    @override
    def log(self, event: Mapping[str, Any]) -> None:
        for name, value in numbers(event).items():
            self._writer.add_scalar(name, value, global_step=event.get("step"))

    @override
    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases(Tracker):
    """Weights & Biases; its own variables say where to (`WANDB_MODE=offline` keeps the run here)."""

    def __init__(self, folder: RunFolder) -> None:
        library = _library("wandb", extra="wandb")
        name, settings = folder.path.name, _settings(folder)
        try:
            self._run = library.init(
                project=PROJECT, name=name, id=name, resume="allow", dir=str(folder.path), config=settings
            )
        except library.errors.Error as error:
            raise StudioError(
                f"Weights & Biases cannot start ({str(error).rstrip('.')}); log in with `wandb login`, set WANDB_MODE=offline, or "
                "leave it out of --trackers.",
                field="trackers",
            ) from None

    @override
    def log(self, event: Mapping[str, Any]) -> None:
        if found := numbers(event):
            self._run.log(found, step=event.get("step"))

    @override
    def close(self) -> None:
        self._run.finish()


def _library(name: str, *, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise StudioError(
            f"Tracker {name!r} is not installed; run `pip install 'finetuning-studio[{extra}]'`, "
            f"or leave it out of --trackers.",
            field="trackers",
        ) from None


def _settings(folder: RunFolder) -> dict[str, Any]:
    return json.loads(folder.config.read_text(encoding="utf-8"))

"""What the settings of a run rule out together, refused before anything is loaded. No torch."""

from studio import catalog
from studio.config import Run
from studio.errors import StudioError

_SHARDED_OPTIMIZERS = ("adamw", "sgd")
"""Optimizers that treat each number alone, so that a share of a matrix steps as the whole would."""


def check(run: Run) -> None:
    """Refuse what cannot work.

    Raises:
        StudioError: with the setting to change.
    """
    card = catalog.card_of(run.method)
    if not card.trainer:
        raise StudioError(
            f"{card.name} trains nothing: it changes what is drawn; give it to studio sample, as in "
            f"""--edits '{{"kind": "{card.name}", ...}}'.""",
            field="method",
        )
    card.check(run.method)
    share = run.hardware.num_processes * run.loop.accumulate
    if run.loop.batch_size % share:
        raise StudioError(
            f"loop.batch_size {run.loop.batch_size} cannot be split over {run.hardware.num_processes} processes x "
            f"{run.loop.accumulate} parts; choose a multiple of {share}.",
            field="loop.batch_size",
        )
    if run.optim.name == "schedule-free" and run.optim.ema:
        raise StudioError(
            "optim.ema and the schedule-free optimizer both average the weights; set --optim.ema 0.",
            field="optim.ema",
        )
    if run.hardware.sharded:
        _check_sharded(run)


def _check_sharded(run: Run) -> None:
    hardware = run.hardware
    refused = {
        "hardware.num_processes": (hardware.num_processes == 1, "set it to the number of GPUs"),
        "optim.name": (run.optim.name not in _SHARDED_OPTIMIZERS, "choose adamw or sgd"),
        "hardware.precision": (hardware.precision == "fp16", "choose bf16 or fp32"),
        "hardware.quantize": (hardware.quantize != "none", "choose none"),
        "hardware.offload": (hardware.offload, "switch it off"),
    }
    for field, (wrong, advice) in refused.items():
        if wrong:
            value = getattr(run.optim if field == "optim.name" else hardware, field.rpartition(".")[2])
            raise StudioError(f"hardware.sharded does not go with {field} {value}; {advice}.", field=field)

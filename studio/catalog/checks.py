"""What the settings of a run rule out together, refused before anything is loaded. No torch."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from studio.catalog import methods, outside, parts, recognize
from studio.catalog.run import Run
from studio.errors import StudioError
from studio.settings import serial
from studio.settings.custom import Custom
from studio.settings.sampling import Parts, Text

_EXTENDS = {
    "loop.steps",
    "loop.epochs",
    "loop.log_every",
    "loop.checkpoint_every",
    "loop.keep_checkpoints",
    "name",
    "output",
}
_MACHINE = ("hardware.", "preview.", "trackers")
_SHARDED_OPTIMIZERS = ("adamw", "sgd")
"""Optimizers that treat each number alone, so that a share of a matrix steps as the whole would."""


_BY_WEIGHT = ("adamw", "adamw8bit", "lion8bit", "sgd", "adafactor")
"""Optimizers whose state of a weight depends on that weight alone."""


def check(run: Run) -> None:
    """Refuse what cannot work.

    Raises:
        StudioError: with the setting to change.
    """
    card = methods.card_of(run.method)
    if not card.trainer:
        raise StudioError(
            f"{card.name} trains nothing: it changes what is drawn; give it to studio sample, as in "
            f"""--edits '{{"kind": "{card.name}", ...}}'.""",
            field="method",
        )
    card.check(run.method)
    for field, custom in _own(run.method):
        outside.require(custom.path, what=field, field=f"{field}.path")
    if Path(run.name).name != run.name or run.name == "..":
        raise StudioError(
            f"name {run.name!r} is a path; give a plain name without a slash, and the folder of all runs with --output.",
            field="name",
        )
    card.follow(run, serial.flatten(run.to_dict()).keys())
    share = run.hardware.num_processes * run.loop.accumulate
    if run.loop.batch_size * card.rows(run.method) % share:
        batch = parts.follow(run, {parts.PARTS, parts.PROCESSES}).loop.batch_size
        raise StudioError(
            f"loop.batch_size {run.loop.batch_size} cannot be split over {run.hardware.num_processes} processes x "
            f"{run.loop.accumulate} parts; choose loop.batch_size {batch} with loop.accumulate {run.loop.accumulate}.",
            field="loop.batch_size",
        )
    if run.optim.name == "schedule-free" and run.optim.ema:
        raise StudioError(
            "optim.ema and the schedule-free optimizer both average the weights; set --optim.ema 0.",
            field="optim.ema",
        )
    _check_hardware(run)
    _check_text(run.method)
    _check_model(run.method)
    if {"adapter", "export"} <= serial.hints(type(run.method)).keys():
        _check_formats(run.method.adapter, run.method.export.formats)


def is_diffusion(run: Run) -> bool:
    """Whether a method trains something on a text-to-image model told by its name."""
    return serial.hints(type(run.method)).get("parts") is Parts


def _check_quantized(run: Run) -> None:
    """Only frozen weights of text-to-image models can be stored in fewer bits."""
    kinds, wanted = serial.hints(type(run.method)), run.hardware.quantize
    if not is_diffusion(run):
        raise StudioError(
            f"--hardware.quantize {wanted} is for methods that train something on a text-to-image model; leave it out.",
            field="hardware.quantize",
        )
    if "adapter" in kinds and serial.kind(type(run.method.adapter)) == "full":
        raise StudioError(
            f"--hardware.quantize {wanted} stores frozen weights, and --adapter full trains them; choose another adapter, or "
            "set --hardware.quantize none.",
            field="hardware.quantize",
        )
    if "export" in kinds and "merged" in run.method.export.formats:
        raise StudioError(
            f"The merged format cannot be written of weights in {wanted}; leave it out of --export.formats, and merge into the "
            "model's own weights after the training: studio export RUN --formats merged.",
            field="export.formats",
        )


def _check_text(settings: Any) -> None:
    """Brackets in captions are brackets."""
    if serial.hints(type(settings)).get("text") is Text and settings.text.weights:
        raise StudioError(
            "text.weights reads (word:1.3) as a weight, which is for drawing: captions of training are read as they are. "
            "Leave it out.",
            field="text.weights",
        )


def _check_model(settings: Any) -> None:
    """A text-to-image model that is told by its name, folder or file is refused before torch is imported."""
    if serial.hints(type(settings)).get("parts") is Parts:
        recognize.check(settings.model, settings.parts)


def _own(settings: Any, where: str = "") -> Iterator[tuple[str, Custom]]:
    """Code from outside that settings name, each with the dotted name of its setting."""
    for item in dataclasses.fields(settings):
        value, path = getattr(settings, item.name), f"{where}{item.name}"
        if isinstance(value, Custom):
            yield path, value
        elif serial.is_config(type(value)):
            yield from _own(value, f"{path}.")


def _check_formats(adapter: Any, formats: Sequence[str]) -> None:
    """What the formats of files cannot hold is said before the training, not behind it."""
    kind = serial.kind(type(adapter))
    what, refused = f"--adapter {kind}", {"diffusers", "kohya", "comfy"}
    if kind == "full":
        refused.add("peft")
    elif kind == "lora":
        what, refused = "DoRA", {"kohya", "comfy"} if adapter.dora else set()
    if wrong := [name for name in formats if name in refused]:
        allowed = [n for n in ("diffusers", "kohya", "comfy", "peft", "merged") if n not in refused]
        raise StudioError(
            f"The {wrong[0]} format cannot hold what {what} trains; choose --export.formats among: {', '.join(allowed)}.",
            field="export.formats",
        )


def _check_hardware(run: Run) -> None:
    if run.optim.full_bf16 or run.optim.fused_backward:
        _check_one_by_one(run)
    if run.hardware.sharded:
        _check_sharded(run)
    if run.hardware.quantize != "none":
        _check_quantized(run)


def _check_one_by_one(run: Run) -> None:
    """Weights that are stepped one by one need an optimizer that treats each by itself."""
    loop, fused = run.loop, run.optim.fused_backward
    refused = {
        "optim.name": (run.optim.name not in _BY_WEIGHT, f"choose one of: {', '.join(_BY_WEIGHT)}"),
        "hardware.precision": (run.hardware.precision == "fp16", "choose bf16 or fp32"),
        "hardware.sharded": (run.hardware.sharded, "leave it out"),
        "loop.clip_norm": (
            fused and loop.clip_norm > 0,
            "set it to 0: the norm of all gradients is never there",
        ),
        "loop.accumulate": (fused and loop.accumulate > 1, "set it to 1"),
        "hardware.num_processes": (fused and run.hardware.num_processes > 1, "set it to 1"),
    }
    asked = "optim.fused_backward" if fused else "optim.full_bf16"
    for field, (wrong, advice) in refused.items():
        if wrong:
            value = serial.flatten(run.to_dict())[field]
            raise StudioError(f"{asked} does not go with {field} {value}; {advice}.", field=field)


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


def refuse_changes(old: dict[str, Any], new: dict[str, Any], allowed: bool) -> None:
    """Refuse to go on with changed settings, but for those that leave the mathematics as they are.

    Raises:
        StudioError: Says what was changed.
    """
    before, after = old["loop"], new["loop"]
    if after["epochs"] and before["steps"] != after["steps"]:
        raise StudioError(
            f"The run counts {after['epochs']} epochs, and loop.steps {after['steps']} would not be heeded; change "
            "--loop.epochs, or set it to 0.",
            field="loop.steps",
        )
    free = (
        set(_EXTENDS) if old["optim"]["schedule"] == "constant" else _EXTENDS - {"loop.steps", "loop.epochs"}
    )
    changed = [
        line
        for line in serial.differences(old, new)
        if (name := line.split(":")[0]) not in free and not name.startswith(_MACHINE)
    ]
    if changed and not allowed:
        raise StudioError(
            f"The run was made with other settings ({'; '.join(changed)}); resume with the same ones, or pass "
            "--allow-changes to go on as a different run.",
            field=changed[0].split(":")[0],
        )

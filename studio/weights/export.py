"""Write what was trained in the ecosystem's formats, and read every file back at once.

A file is written beside its place, loaded by diffusers' own loader (PEFT's for a PEFT folder) into a fresh copy of
the base model, and compared on a fixed input. Only a file that gives the trained model takes its place.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from peft import PeftType
from torch import Tensor, nn

from studio.adapters import formats
from studio.adapters.build import NAME, names
from studio.adapters.config import Export, Format
from studio.adapters.dialects.reading import BASE_NORM
from studio.adapters.files import read_peft, staged, write, write_peft
from studio.adapters.loading import load_adapter, load_by_diffusers
from studio.adapters.merge import as_type, bare, merged_copy
from studio.adapters.metadata import Facts, header
from studio.adapters.strength import set_strength
from studio.adapters.updates import Updates
from studio.adapters.verify import Answer, ask, tolerance
from studio.catalog.family import FamilyCard
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.checkpoints.fill import again
from studio.models.checkpoints.original import DENOISER, one_file, require_one_file
from studio.models.files import absent
from studio.records import texts

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Rename = Callable[[Updates, FamilyCard, Mapping[str, nn.Module]], dict[str, Tensor]]
BY_BASE = {BASE_NORM: "base"}
CHECK = "check"
"""Adapter name in the fresh model."""


@dataclass(frozen=True)
class Exported:
    """A file or folder that was written, read back and found equal.

    Attributes:
        path: Where it is.
        format: Its format.
        difference: Largest difference on the fixed input, relative to the largest value.
        tolerance: What was allowed.
    """

    path: Path
    format: Format
    difference: float
    tolerance: float


@dataclass(frozen=True)
class _Job:
    """What every format needs."""

    family: Family
    modules: Mapping[str, nn.Module]
    settings: Export
    facts: Facts
    name: str

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the files."""
        return DTYPES[self.settings.precision]


def export(
    family: Family,
    modules: Mapping[str, nn.Module],
    folder: str | Path,
    *,
    settings: Export = Export(),
    facts: Facts = Facts(),
    name: str = NAME,
) -> list[Exported]:
    """Write the trained weights into a folder, in every format asked for.

    Args:
        family: The model; its `modules()` hold the adapters or the finetuned weights.
        modules: The trained ones among them, unwrapped, by component name.
        folder: Where to; files of the same name are replaced.
        settings: Formats, names and what to tell.
        facts: What is known about the run.
        name: The adapter's name on the modules; modules without it count as finetuned whole.

    Returns:
        One entry a file.

    Raises:
        StudioError: A format cannot hold the adapter, cannot be written, or does not give the trained model when
            read back. Nothing is left behind of that format.
    """
    settings = settings if settings.name else replace(settings, name=Path(folder).resolve().parent.name)
    job = _Job(family, modules, settings, facts, name)
    adapted = {key: module for key, module in modules.items() if name in names(module)}
    if adapted:
        set_strength(adapted, name, 1.0)
    chosen = settings.formats or _fitting(job, adapted)
    formats.require_named(family.card, chosen)
    wanted = ask(family, {})
    return [_one(job, each, Path(folder), wanted) for each in chosen]


def require_writable(
    family: Family, modules: Mapping[str, nn.Module], settings: Export, name: str = NAME
) -> None:
    """Refuse formats that cannot hold what is trained: asked once adapters are on, before the first step.

    Raises:
        StudioError: A format that was asked for cannot.
    """
    if "single-file" in settings.formats:
        require_one_file(family.card)
    files = [one for one in settings.formats if one in ("diffusers", "kohya", "comfy")]
    adapted = {key: module for key, module in modules.items() if name in names(module)}
    if len(adapted) < len(modules) and (files or "peft" in settings.formats):
        raise StudioError(
            f"{min(modules.keys() - adapted.keys())} is finetuned whole, which {' and '.join(settings.formats)} cannot hold; set "
            "export.formats merged.",
            field="export.formats",
        )
    if files:
        formats.require_held(formats.updates(adapted, name), family.card, adapted, files)


def _one(job: _Job, chosen: Format, folder: Path, wanted: Answer) -> Exported:
    writers: dict[Format, tuple[str, Callable[[_Job, Path], dict[str, nn.Module]]]] = {
        "diffusers": ("pytorch_lora_weights.safetensors", _diffusers),
        "kohya": (f"{job.settings.name}.safetensors", partial(_native, rename=formats.to_kohya, told={})),
        "comfy": (
            f"{job.settings.name}-comfy.safetensors",
            partial(_native, rename=formats.to_comfy, told=BY_BASE),
        ),
        "peft": ("peft", _peft),
        "merged": ("merged", _merged),
        "single-file": (f"{job.settings.name}-model.safetensors", _single),
    }
    file, write_and_reload = writers[chosen]
    allowed = tolerance(job.family, job.dtype)
    with staged(folder / file) as path:
        difference = wanted.difference(ask(job.family, write_and_reload(job, path)))
        if not difference <= allowed:
            raise StudioError(
                f"The {chosen} export read back differs from the trained model by {difference:.2g} (allowed "
                f"{allowed:.2g}), so it was not kept; choose another format with export.formats."
            )
    log.info("%s: %s, read back within %.1g", chosen, folder / file, difference)
    return Exported(folder / file, chosen, difference, allowed)


def _fitting(job: _Job, adapted: Mapping[str, nn.Module]) -> tuple[Format, ...]:
    """Formats that can hold what was trained."""
    if len(adapted) < len(job.modules):
        return ("merged",)
    configs = [vars(module)["peft_config"][job.name] for module in adapted.values()]
    if any(config.peft_type != PeftType.LORA for config in configs):
        return ("peft",)
    dora = any(config.use_dora for config in configs)
    t5 = any(type(module).__name__ == "T5EncoderModel" for module in adapted.values())
    if dora or t5:
        return ("diffusers", "peft")
    named = job.family.card.names
    return (
        ("diffusers", "kohya") if named.kohya else ("diffusers", "comfy") if named.comfy else ("diffusers",)
    )


def _diffusers(job: _Job, path: Path) -> dict[str, nn.Module]:
    parts = formats.updates(job.modules, job.name)
    values = _cast(formats.to_diffusers(parts), job.dtype)
    told = header(job.family, values, job.settings, job.facts)
    write(path, values, told | formats.lora_metadata(parts, job.modules, job.name))
    pipeline, fresh = job.family.pipeline(), _fresh(job)
    pipeline.register_modules(**fresh)
    load_by_diffusers(pipeline, path, CHECK)
    return _arrived(path, parts, fresh)


def _native(job: _Job, path: Path, *, rename: Rename, told: Mapping[str, str]) -> dict[str, nn.Module]:
    parts = formats.updates(job.modules, job.name)
    values = _cast(rename(parts, job.family.card, job.modules), job.dtype)
    magnitudes = any(key.endswith(".dora_scale") for key in values)
    own = header(job.family, values, job.settings, job.facts, native=True)
    write(path, values, {**own, **(told if magnitudes else {})})
    fresh = _fresh(job)
    load_adapter(path, job.family.card, fresh, CHECK)
    return _arrived(path, parts, fresh)


def _arrived(path: Path, parts: Updates, fresh: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The fresh models with the file loaded into them.

    Raises:
        StudioError: Some layers of the adapter did not arrive.
    """
    arrived = formats.updates(fresh, CHECK)
    lost = {f"{key}.{layer}" for key, layers in parts.items() for layer in layers} - {
        f"{key}.{layer}" for key, layers in arrived.items() for layer in layers
    }
    if lost:
        raise StudioError(
            f"{len(lost)} layers did not survive in {path.name}, first {min(lost)}; it was not kept."
        )
    return fresh


def _peft(job: _Job, path: Path) -> dict[str, nn.Module]:
    fresh = _fresh(job)
    for key, module in job.modules.items():
        if job.name not in names(module):
            raise StudioError(f"{key} was finetuned whole, so it has no PEFT folder; export merged instead.")
        write_peft(path / key, module, job.name, job.facts.base_model, told=_told(job), dtype=job.dtype)
        read_peft(path / key, fresh[key], CHECK)
    return fresh


def _merged(job: _Job, path: Path) -> dict[str, nn.Module]:
    pipeline = _whole(job)
    pipeline.save_pretrained(path, safe_serialization=True)
    for told in _told(job).values():
        (path / texts.FILE).write_text(told, encoding="utf-8")
    again = job.family.pipeline_class.from_pretrained(str(path), local_files_only=True, **absent(path))
    return _read_back(job, again.components)


def noise_marks(family: Family) -> dict[str, Tensor]:
    """Empty tensors by which readers of one file tell how its noise is meant (NoobAI's keys): velocity, zero terminal SNR."""
    scheduler: Any = family.scheduler_base
    marks = {
        "v_pred": family.prediction == "v",
        "ztsnr": bool(scheduler.config.get("rescale_betas_zero_snr")),
    }
    return {key: torch.empty(0) for key, true in marks.items() if true}


def _single(job: _Job, path: Path) -> dict[str, nn.Module]:
    """One file in the original names, read back by our own reader of such files, with the model's sizes."""
    pipeline, card = _whole(job), job.family.card
    values = one_file(card, pipeline.components) | noise_marks(job.family)
    write(path, values, header(job.family, values, job.settings, job.facts, kind="", native=True))
    starts = {card.denoiser: DENOISER} | {name: own[0] for name, own in card.recognize.text.items()}
    found = {name: again(pipeline.components[name], path, start) for name, start in starts.items()}
    return _read_back(job, found)


def _whole(job: _Job) -> DiffusionPipeline:
    """The pipeline with the adapters folded in, in the precision that was asked for."""
    pipeline = job.family.pipeline()
    pipeline.register_modules(**{key: merged_copy(module) for key, module in job.modules.items()})
    if job.dtype != torch.float32:
        kept = job.family.card.fp32 if job.dtype == torch.float16 else ()
        parts = {
            key: part
            for key, part in pipeline.components.items()
            if isinstance(part, nn.Module) and key not in kept
        }
        pipeline.register_modules(**{key: as_type(part, job.dtype) for key, part in parts.items()})
    return pipeline


def _read_back(job: _Job, found: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The trained parts as they were read, in the type that is computed in."""
    own = {key: part for key, part in found.items() if key in job.modules}
    return {key: part.to(_device(job.modules[key]), _dtype(job.modules[key])) for key, part in own.items()}


def _told(job: _Job) -> dict[str, str]:
    """How text was read, unless nothing is to be told."""
    return {} if job.settings.strip_metadata else {texts.KEY: texts.written(job.family.text)}


def _fresh(job: _Job) -> dict[str, nn.Module]:
    """The trained models without adapters, sharing the base weights; the file has nothing for the others."""
    return {key: bare(module) for key, module in job.modules.items()}


def _cast(values: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {key: value.to(dtype) for key, value in values.items()}


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype

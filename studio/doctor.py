"""What is installed here and what of it works, found by running it: a text to paste into an issue."""

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from huggingface_hub import constants

from studio import assets
from studio.backend.attention import KERNELS, probe
from studio.backend.devices import best_device, can_compute, devices
from studio.backend.simulated import device as simulated

_LIBRARIES = (
    "torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "timm", "open-clip-torch",
    "safetensors", "pydantic", "tyro", "gradio",
)  # fmt: skip
_OPTIONAL = ("xformers", "bitsandbytes", "wandb", "tensorboard", "trackio")
_EMBEDDED = (
    "models/studio-tiny",
    "models/studio-tiny-dit",
    "models/studio-tiny-clip",
    "models/studio-tiny-vit",
    "stickers",
    "samples",
)
_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LOW_DISK_GIB = 10
WORKS = "works"


@dataclass(frozen=True)
class Report:
    """Facts as (area, name, value), in order."""

    lines: tuple[tuple[str, str, str], ...]

    def as_dict(self) -> dict[str, dict[str, str]]:
        """The facts by area and name."""
        areas: dict[str, dict[str, str]] = {}
        for area, name, value in self.lines:
            areas.setdefault(area, {})[name] = value
        return areas

    def text(self) -> str:
        """The facts as Markdown, ready to paste into an issue."""
        parts: list[str] = []
        for area, facts in self.as_dict().items():
            parts += [f"**{area}**", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
        return "\n".join(parts)


def report() -> list[tuple[str, str, str]]:
    """All facts as (area, name, value)."""
    return list(doctor().lines)


def doctor(output: str | Path = "runs") -> Report:
    """Look at this machine.

    Args:
        output: Folder of runs, whose disk is looked at.
    """
    areas: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
        "versions": _versions,
        "devices": _devices,
        "precision": _precisions,
        "attention": _kernels,
        "optional": _optional,
        "storage": lambda: _storage(Path(output)),
        "embedded": _embedded,
    }
    return Report(tuple((area, name, value) for area, facts in areas.items() for name, value in facts()))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _versions() -> Iterator[tuple[str, str]]:
    yield "studio", _version("finetuning-studio") or "a checkout that is not installed"
    yield "python", f"{sys.version.split()[0]} on {platform.platform()}"
    for name in _LIBRARIES:
        yield name, _version(name) or "missing: run `pip install finetuning-studio`"


def _devices() -> Iterator[tuple[str, str]]:
    yield from devices().items()
    yield "auto takes", str(best_device())
    lacks = simulated.missing()
    yield "simulated", lacks or "for `studio plan --gpu`: counts memory and computes nothing"
    yield "threads", f"{torch.get_num_threads()} of {psutil.cpu_count()} used by torch"
    memory = psutil.virtual_memory()
    yield "memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"


def _precisions() -> Iterator[tuple[str, str]]:
    for name, dtype in _PRECISIONS.items():
        yield name, can_compute(dtype, best_device()) or WORKS


def _kernels() -> Iterator[tuple[str, str]]:
    device = best_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    for kernel in KERNELS:
        yield kernel, probe(kernel, device, dtype) or WORKS


def _optional() -> Iterator[tuple[str, str]]:
    probes = {"bitsandbytes": _probe_bitsandbytes}
    for name in _OPTIONAL:
        if not _version(name):
            yield name, "not installed"
            continue
        found = probes[name]() if name in probes else ""
        yield name, f"{_version(name)}, {found or WORKS}"


def _attempt(action: Callable[[], object]) -> str:
    """Run something of an optional library; empty if it works, else the reason why not."""
    try:
        action()
    except (ImportError, OSError, RuntimeError, NotImplementedError, AttributeError, ValueError) as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    return ""


def _probe_bitsandbytes() -> str:
    def quantize() -> None:
        from bitsandbytes import functional  # pyright: ignore[reportMissingImports]  # optional

        functional.quantize_4bit(torch.ones(64, 64, device=best_device()))

    return _attempt(quantize)


def _storage(output: Path) -> Iterator[tuple[str, str]]:
    existing = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free / 2**30
    yield (
        "runs",
        f"{free:.0f} GiB free{'' if free >= _LOW_DISK_GIB else ': little, a checkpoint may not fit'}",
    )
    cache = Path(constants.HF_HUB_CACHE)
    models = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    shown = f"~/{cache.relative_to(Path.home())}" if cache.is_relative_to(Path.home()) else str(cache)
    yield "model cache", f"{models} models in {shown}"
    yield "hub", "offline (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "online"


def _embedded() -> Iterator[tuple[str, str]]:
    for name in _EMBEDDED:
        yield name, "present" if assets.exists(name) else "missing"


def problems(facts: dict[str, Any]) -> list[str]:
    """What a person should look at, from `Report.as_dict`: what is missing or too small."""
    return [
        f"{area}/{name}: {value}"
        for area, values in facts.items()
        for name, value in values.items()
        if value.startswith("missing") or ": little" in value
    ]

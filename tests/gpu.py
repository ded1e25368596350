"""What only a GPU can show: `make gpu`, or `python -m tests.gpu [PART ...]`, eight minutes at most; writes `docs/gpu.md`.

Each part runs in a process of its own with its own time limit, the most valuable first; what they find is kept in `gpu.json`.
Models are at full size with random weights from their published settings: nothing is downloaded. nf4 needs bitsandbytes.
Without a GPU nothing is measured: the page then shows what is planned, and says that no GPU has run it.
"""

import contextlib
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from studio.backend.core import Backend
from studio.backend.devices import best_device
from studio.backend.quiet import quiet
from studio.catalog.families import cards
from studio.catalog.run import Run
from studio.commands.planning import assumed_data
from studio.flags import flags
from studio.models import build
from studio.models.pretended import pretended
from studio.settings.run import Hardware
from studio.training.measure import measure
from studio.training.verify import verify_resume
from tests import planned, tree

FILE = Path(__file__).with_name("gpu.json")
PAGE = tree.ROOT / "docs" / "gpu.md"
MODELS = ("sd15", "sdxl", "flux-dev", "z-image", "qwen-image")
WAYS = {
    "as it is": (),
    "compile": ("--hardware.compile",),
    "offload": ("--hardware.offload",),
    "int8": ("--hardware.quantize", "int8"),
    "nf4": ("--hardware.quantize", "nf4"),
}
LIMITS = {"equal": 60, "resume": 45, **{f"memory {name}": 60 for name in MODELS}, "ways": 75}
"""Seconds that each part may take, in order of value."""
Found = dict[str, Any]
log = logging.getLogger(__name__)


class RandomWeights:
    """Stands where the simulated machine does, and gives tensors with values on this machine's own."""

    units = 0

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Weights small enough that nothing overflows."""
        return torch.empty(shape, dtype=dtype, device=best_device()).normal_(std=0.02)

    def mark(self, part: str) -> None:
        """No one counts parts here."""


@contextlib.contextmanager
def random_weights() -> Iterator[None]:
    """Published models have random weights inside."""

    def read(name: str, known: Any, backend: Backend, dtype: torch.dtype, **_: Any) -> Any:
        machine: Any = RandomWeights()
        return pretended(machine, known.card, known.variant.architecture, dtype, known.variant)

    with mock.patch.object(build, "_read", read):
        yield


@contextlib.contextmanager
def training(model: str, *more: str) -> Iterator[Run]:
    """A LoRA of a model with the preset that it gets, on one picture."""
    with tempfile.TemporaryDirectory() as folder:
        given = ["--model", model, "--prior", "no-prior", "--output", folder, *more]
        run, _ = flags.started(planned.METHOD, [*given, *assumed_data(planned.METHOD, given, Path(folder))])
        yield run


def equal() -> Found:
    """Largest difference of a prediction and its gradient between GPU and CPU, in fp32, relative to the largest value."""
    return {name: _difference(name) for name in cards()}


def _difference(name: str) -> float:
    def said(device: Any) -> list[Tensor]:
        family = build.load(f"tiny:{name}", Backend(Hardware(device=device, precision="fp32", tf32=False)))
        place, shape = family.backend.device, family.latent_shape(64, 64)
        x_t = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(place).requires_grad_()
        cond = family.with_guidance(family.embed(["a dog", ""]), 3.5)
        found = family.predict(x_t, torch.tensor([0.3, 0.8], device=place), cond)
        return [each.detach().cpu() for each in (found, *torch.autograd.grad(found.square().sum(), x_t))]

    pairs = zip(said("cpu"), said(best_device().type), strict=True)
    return max(float((one - two).abs().max() / one.abs().max()) for one, two in pairs)


def resume() -> Found:
    """Tensors that differ after a stop and a resume, by method settings."""
    with training("tiny:sdxl", "--hardware.deterministic", "--loop.batch-size", "2") as run:
        return {"tiny:sdxl": len(verify_resume(run, steps=6, at=3))}


def memory(model: str) -> Found:
    """Peak by phase, and seconds a step."""
    with training(model) as run, random_weights():
        found = measure(run)
    phases = {phase.name: round(phase.gib, 2) for phase in found.phases}
    return {"gib": max(phases.values()), "phases": phases, "seconds": found.step_seconds}


def ways() -> Found:
    """What compiling, offload and fewer bits cost SD 1.5."""
    return {way: _way(more) for way, more in WAYS.items()}


def _way(more: tuple[str, ...]) -> Found:
    with training("sd15", *more) as run, random_weights():
        found = measure(run)
    load = next(phase.seconds for phase in found.phases if phase.name == "load")
    return {"gib": round(found.peak_gib, 2), "seconds": found.step_seconds, "load": load}


def one(part: str) -> Found:
    """What a part finds."""
    name, _, model = part.partition(" ")
    return memory(model) if model else {"equal": equal, "resume": resume, "ways": ways}[name]()


def apart(part: str, seconds: int) -> Found:
    """A part in a process of its own; why it gave nothing, if it did not."""
    command = [sys.executable, "-m", "tests.gpu", "--one", part]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {seconds} s"}
    except subprocess.CalledProcessError as error:
        return {"failed": (error.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    return json.loads(done.stdout.splitlines()[-1])


def render(found: Found) -> str:
    """The page."""
    device, parts = found["device"], found["parts"]
    who = (
        f"Measured on {device}." if device else "**No GPU has run this yet**: only what is planned is shown."
    )
    counted = json.loads(planned.FILE.read_text(encoding="utf-8"))
    rows = [_memory_row(name, counted, parts.get(f"memory {name}", {})) for name in MODELS]
    return "\n".join(
        [*TEXT, who, "", *rows_of(["model", "planned", "measured", "a step"], rows), *_others(parts)]
    )


TEXT = """# On a GPU

What only a GPU can show, by `make gpu` (eight minutes at most): LoRA training of published models at full size with random weights,
the preset that each gets, one picture; a prediction and its gradient against the CPU; resuming; what each saving costs.
""".splitlines()


def rows_of(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table."""
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]] + [""]


def _memory_row(name: str, counted: Found, measured: Found) -> list[str]:
    plan = counted.get(f"{name} LoRA", [{}])[0].get("gib")
    told = measured.get("failed") or (f"{measured['gib']} GiB" if measured else "-")
    step = f"{measured['seconds']:.3f} s" if "seconds" in measured else "-"
    return [f"`{name}`", f"{plan} GiB" if plan else "-", told, step]


def _others(parts: Found) -> list[str]:
    lines: list[str] = []
    for title, name in (
        ("GPU against CPU, fp32", "equal"),
        ("Tensors that a resume changed", "resume"),
        ("Ways of SD 1.5", "ways"),
    ):
        if name in parts:
            lines += [
                f"## {title}",
                "",
                *rows_of(["what", "found"], [[key, str(value)] for key, value in parts[name].items()]),
            ]
    return lines


def main(names: list[str]) -> None:
    """Run parts, or those named; write what was found, and the page."""
    there = torch.cuda.is_available()
    found: Found = {"device": torch.cuda.get_device_name() if there else None, "parts": {}}
    if FILE.is_file() and names:
        found["parts"] = json.loads(FILE.read_text(encoding="utf-8"))["parts"]
    for part, seconds in LIMITS.items() if there else ():
        if not names or part in names:
            found["parts"][part] = apart(part, seconds)
            log.info("%s: %s", part, found["parts"][part])
            FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if there or not FILE.is_file():
        PAGE.write_text(render(found), encoding="utf-8")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    quiet()
    if sys.argv[1:2] == ["--one"]:
        sys.stdout.write(json.dumps(one(sys.argv[2])) + "\n")
    else:
        main(sys.argv[1:])

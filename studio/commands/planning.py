"""`studio plan`: what a run would need, measured here or counted for a GPU that is not there."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from studio.catalog import methods, traits
from studio.catalog.checks import check
from studio.commands.training import tell
from studio.console import Console
from studio.errors import RunFailed, StudioError
from studio.flags import flags
from studio.settings import memory

_SIDE = 1024
"""Side of the assumed picture where the model's size is not known."""


def plan(argv: list[str], console: Console) -> None:
    """What a run would need: `studio plan METHOD [the flags of studio train] [--gpu 12GiB] [--ram 16GiB]`."""
    if not argv or argv[0].startswith("-"):
        raise StudioError(
            "studio plan needs the name of a method, then the flags of studio train.", field="method"
        )
    own, rest = flags.take(argv[1:], "gpu", "ram")
    if "ram" in own and "gpu" not in own:
        raise StudioError(
            "--ram goes with --gpu: without it the run is measured on this machine, with the memory it has.",
            field="ram",
        )
    gpu: str | float = own.get("gpu", 0.0)
    if gpu and gpu != "auto":
        gpu = memory.gib(own["gpu"], "gpu")
    ram = memory.gib(own["ram"], "ram") if "ram" in own else 0.0
    with tempfile.TemporaryDirectory(prefix="studio-plan-") as folder:
        _plan(argv[0], rest, console, gpu=gpu, ram=ram, folder=Path(folder))


def _plan(
    method: str, argv: list[str], console: Console, *, gpu: str | float, ram: float, folder: Path
) -> None:
    prog = f"studio plan {method}"
    if gpu and (assumed := assumed_data(method, argv, folder)):
        argv = [*argv, *assumed]
        console.print("data: none given; one picture at the model's size is assumed")
    run, start = flags.started(method, argv, prog=prog)
    check(run)
    tell(start, console)
    from studio.backend.peak import free_gib
    from studio.backend.quiet import quiet
    from studio.training import plan as planning

    quiet()
    found = planning.plan(run, gpu=free_gib() if gpu == "auto" else float(gpu), ram=ram)
    console.record({**found.as_dict(), "preset": dataclasses.asdict(start.choice)})
    for name, text in found.lines():
        console.print(f"{name:<12} {text}")
    if not found.fits:
        raise RunFailed(found.advice)


def assumed_data(method: str, argv: Sequence[str], folder: Path) -> list[str]:
    """The flag of one picture, made here, where a method of pictures was given none; else nothing."""
    card = methods.card(method)
    names = {field.name: field.type for field in dataclasses.fields(card.config)}
    if not {"data", "images", "model"} <= names.keys() or "data" in flags.take(argv, "data")[0]:
        return []
    own, _ = flags.take(argv, "model")
    variant = traits.variant_of(own.get("model", ""))
    side = variant.size if variant else _SIDE
    Image.new("RGB", (side, side), "gray").save(folder / "0.png")
    return ["--data", str(folder)]

"""`studio models pretrain NAME ...`: trains, judges and installs one of the embedded models. Torch comes once the flags are right."""

from pathlib import Path

from studio.console import Console
from studio.errors import StudioError, unknown
from studio.flags import flags
from studio.settings.config import Count, config
from studio.settings.run import Hardware

NAMES = ("tiny-autoencoder", "tiny-clip", "tiny-dit", "tiny-t2i", "tiny-vit")


@config
class Anew:
    """Train one of the embedded models anew, or go on where that was stopped."""

    output: str = "runs"
    """Folder of the runs; the run is named after the model."""
    steps: Count = 0
    """Optimizer steps; 0 takes the usual number."""
    install: str = ""
    """Folder that receives the finished model, such as assets/models; empty leaves it in the run."""
    hardware: Hardware = Hardware()


def command(argv: list[str], console: Console) -> None:
    """Train, judge and install.

    Raises:
        StudioError: No embedded model has this name, or a setting is wrong.
    """
    asks = bool({"-h", "--help"} & set(argv))
    if not asks and (not argv or argv[0].startswith("-")):
        raise StudioError(
            f"studio models pretrain needs a name; choose one of: {', '.join(NAMES)}.", field="name"
        )
    name = "" if argv[0].startswith("-") else argv[0]
    if name and name not in NAMES:
        raise unknown("embedded model", name, NAMES, field="name")
    given: Anew = flags.parse(Anew, argv[1:] if name else argv, prog="studio models pretrain NAME")
    from studio.backend.quiet import quiet
    from trainers.pretrain.run import pretrain

    quiet()
    place = Path(given.install) if given.install else None
    for event in pretrain(
        name, output=given.output, steps=given.steps, hardware=given.hardware, install=place
    ):
        console.event(event)

"""`studio decor components|suggest|save ...`. Torch is imported once the flags are right."""

from studio.console import Console
from studio.flags import flags
from trainers.decor.config import Components, Save, Suggest


def components(argv: list[str], console: Console) -> None:
    """What a prompt's embedding is made of."""
    settings: Components = flags.parse(Components, argv, prog="studio decor components")
    from studio.backend.quiet import quiet
    from trainers.decor import look

    quiet()
    look.components(settings, console)


def suggest(argv: list[str], console: Console) -> None:
    """Words of most training captions that a new prompt does not have."""
    settings: Suggest = flags.parse(Suggest, argv, prog="studio decor suggest")
    from studio.backend.quiet import quiet
    from trainers.decor import look

    quiet()
    look.suggest(settings, console)


def save(argv: list[str], console: Console) -> None:
    """Keep a projector with an adapter."""
    settings: Save = flags.parse(Save, argv, prog="studio decor save")
    from studio.backend.quiet import quiet
    from trainers.decor import look

    quiet()
    look.save(settings, console)

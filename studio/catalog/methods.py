"""Methods, found by folder: `trainers/<name>/config.py` holds the card `METHOD`. No torch."""

import importlib
import pkgutil

from studio.catalog.cards import Card
from studio.errors import unknown


def names() -> list[str]:
    """Names of all methods, hidden ones included."""
    return sorted(m.name for m in pkgutil.iter_modules(places()) if m.ispkg)


def list_methods() -> list[str]:
    """Names of the methods that `studio train` and `studio sample --edits` know, those from outside included."""
    return [name for name in names() if not card(name).hidden]


def places() -> list[str]:
    """The folders that methods are found in."""
    import trainers

    return list(trainers.__path__)


def card(name: str) -> Card:
    """The card of a method by name; dashes and underscores are the same.

    A dotted name is a package outside this project: `my_package.my_method` with its own `config.METHOD`.
    """
    wanted = name.replace("-", "_")
    if "." in wanted:
        try:
            return importlib.import_module(f"{wanted}.config").METHOD
        except ModuleNotFoundError as error:
            raise unknown("method", name, names(), field="method") from error
    if wanted not in (found := names()):
        raise unknown("method", name, [n for n in found if not card(n).hidden], field="method")
    return importlib.import_module(f"trainers.{wanted}.config").METHOD


def card_of(settings: object) -> Card:
    """The card of the method that these settings belong to."""
    module = type(settings).__module__
    return importlib.import_module(module).METHOD

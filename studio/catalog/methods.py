"""Methods and where they are found: here, installed, or a person's own in the working folder. No torch.

A method is a module with a card `METHOD`: `trainers/<name>/config.py` of this project; what an installed package names in
the entry point group `finetuning_studio.methods`; or, by its path, a package or folder with a `config.py`
(`my_package.my_method`, `methods/my_method`) or one file (`my_method.py`).
"""

import functools
import importlib
import logging
import pkgutil
import re
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from studio.catalog import outside
from studio.catalog.cards import Card
from studio.errors import StudioError, unknown
from studio.settings import serial

log = logging.getLogger(__name__)
GROUP = "finetuning_studio.methods"
"""Entry points of installed methods: a name, and the package that holds `config.METHOD`."""
TAKEN = frozenset(
    {
        "method",
        "name",
        "output",
        "seed",
        "loop",
        "optim",
        "hardware",
        "preview",
        "trackers",
        "config",
        "preset",
        "resume",
    }
)
"""Flags that every run has beside its method's."""
_CARD = re.compile(r"^METHOD\s*(:\s*Card\s*)?=\s*Card\(", re.MULTILINE)


def names() -> list[str]:
    """Names of all methods of this project, hidden ones included, and of the installed ones."""
    return sorted({*ours(), *installed()})


def listed() -> list[Card]:
    """Cards of all methods that are not hidden; an installed one that breaks is left out, with a warning."""
    found: list[Card] = []
    for name in names():
        try:
            found.append(card(name))
        except StudioError as error:
            if name in ours():
                raise
            log.warning("installed method %s is left out: %s", name, error)
    return [each for each in found if not each.hidden]


def list_methods() -> list[str]:
    """Names of the methods that `studio train` and `studio sample --edits` know, installed ones and those here included."""
    return [*map(reference, listed()), *here()]


def ours() -> list[str]:
    """Names of the methods of this project."""
    return sorted(module.name for module in pkgutil.iter_modules(map(str, places())) if module.ispkg)


def places() -> list[Path]:
    """The folders that the methods of this project lie in."""
    import trainers

    return [Path(place) for place in trainers.__path__]


@functools.cache
def installed() -> Mapping[str, EntryPoint]:
    """Methods of installed packages, by name; none takes the place of one of this project."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in ours()}


def here() -> list[str]:
    """Methods in the working folder, as `studio train` takes them; found by their text, nothing is imported."""
    files = sorted([*Path.cwd().glob("[!.]*/config.py"), *Path.cwd().glob("[!.]*.py")])
    found = [file for file in files if file.is_file() and _CARD.search(_text(file))]
    names_ = [file.parent.name if file.name == "config.py" else file.name for file in found]
    return [name for name in names_ if name not in ours()]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # nothing that could be trained with
        return ""


def card(name: str) -> Card:
    """The card of a method.

    Args:
        name: Of a method here or installed, dashes and underscores are the same; or where one of your own is: a dotted
            package, a folder with a `config.py`, or a file.

    Raises:
        StudioError: There is none, or what is there cannot be imported.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # what a file holds
        raise StudioError(f"method was given as {name!r}; give its name, such as dreambooth.", field="method")
    wanted = name.replace("-", "_")
    if wanted in ours():
        return importlib.import_module(f"trainers.{wanted}.config").METHOD
    if (
        point := next((p for n, p in installed().items() if n.replace("-", "_") == wanted), None)
    ) is not None:
        return _card_in(
            outside.module(f"{point.module}.config", what=f"Method {name!r}", field="method"), name
        )
    try:
        place = _place(name)
    except (ValueError, OSError, RuntimeError):  # no path on this system
        place = ""
    if not place:
        error = unknown("method", name, list_methods(), field="method")
        raise StudioError(
            f"{error} One of your own is found from its working folder; this is {Path.cwd()}.", field="method"
        )
    return _card_in(outside.module(place, what="Method", field="method"), name)


def _place(name: str) -> str:
    """The module of a person's own method, as `outside.module` takes it; empty if a name leads nowhere."""
    path = Path(name).expanduser()
    if not path.name or path.name == "..":
        return ""
    if (path / "config.py").is_file():
        return str(path / "config.py")
    if path.suffix == ".py" or "/" in name:
        return name
    if path.with_suffix(".py").is_file() and "." not in name:
        return f"{name}.py"
    return f"{name}.config" if "." in name else ""


def _card_in(module: ModuleType, name: str) -> Card:
    found = getattr(module, "METHOD", None)
    if not isinstance(found, Card):
        raise StudioError(
            f"Method {name!r}: {module.__file__} has no card; write `METHOD = Card(name=..., config=..., trainer=...)` in it.",
            field="method",
        )
    if wrong := _wrong(found, module):
        raise StudioError(f"Method {name!r}: the card in {module.__file__} has {wrong}.", field="method")
    if not found.name.replace("_", "").replace(".", "").isalnum():
        raise StudioError(
            f"Method {name!r}: the card's name {found.name!r} would name run folders; use letters, digits and underscores.",
            field="method",
        )
    return found


def _wrong(found: Card, module: ModuleType) -> str:
    """What a card cannot be, in words; empty if it can."""
    texts = (found.name, found.title, found.summary, found.paper, found.trainer, found.edit)
    if not all(isinstance(each, str) for each in texts):  # pyright: ignore[reportUnnecessaryIsInstance]  # a person's
        return "a name, title, summary, paper or place that is no text"
    if not serial.is_config(found.config):
        return f"config={found.config!r}, which is no class with @config"
    if found.config.__module__ != module.__name__:
        return f"a config of {found.config.__module__}; the settings stand beside their card"
    if taken := sorted(set(serial.hints(found.config)) & TAKEN):
        return f"a setting called {taken[0]!r}, which every run has already"
    return ""


def card_of(settings: object) -> Card:
    """The card of the method that these settings belong to."""
    return _card_in(sys.modules[type(settings).__module__], type(settings).__name__)


def reference(method: Card) -> str:
    """What `card` finds a method by again, in another process too: its name if it is here or installed, else its place."""
    module = method.config.__module__
    package = module.removesuffix(".config")
    if package == f"trainers.{method.name}":
        return method.name
    for name, point in installed().items():
        if point.module == package:
            return name
    file = Path(str(sys.modules[module].__file__))
    if module.startswith(outside.PREFIX) or outside.brought(file):
        return str(file.parent if file.name == "config.py" else file)
    if file.name == "config.py":
        return package
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)

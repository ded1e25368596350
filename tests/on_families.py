"""The methods' cases on the families' tiny models, as `tests.matrix` and `tests.simulated` try them."""

import dataclasses
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from studio.backend.quiet import quiet
from studio.catalog import families, methods
from studio.catalog.run import Run
from studio.settings.run import Hardware
from studio.testing import small
from tests.cases import CASES

T = TypeVar("T")


def drawing_methods() -> list[str]:
    """Methods that train a model of a family, found by their cases."""
    tiny = {f"tiny:{name}" for name in families.cards()}
    with tempfile.TemporaryDirectory() as root:
        found = {name: case(Path(root) / name) for name, case in CASES.items() if name in methods.ours()}
    return [name for name, case in sorted(found.items()) if getattr(case, "model", "") in tiny]


def run_of(method: str, family: str, folder: Path, hardware: Hardware, **changes: Any) -> Run:
    """A method's case on another model, or on its own where no family is named. CLIP encoders train where there are some."""
    (folder / "data").mkdir()
    case = CASES[method](folder / "data")
    given: dict[str, Any] = {"model": f"tiny:{family}"} if family else {}
    if family and getattr(case, "text_encoder", False):
        given["text_encoder"] = bool(families.cards()[family].words.trains)
    run = small(dataclasses.replace(case, **given | changes), folder / "runs")
    return dataclasses.replace(run, hardware=hardware)


def wanted(names: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs of method and family; all, or those in which a name occurs."""
    for method in drawing_methods():
        for family in families.cards():
            if not names or {method, family} & set(names):
                yield method, family


FAULT = "FAULT: "
"""In front of what is neither a result nor a refusal."""


def outcome(work: Callable[[], T]) -> T | str:
    """What came of a cell; of anything but a result or a refusal the error, as a fault."""
    try:
        return work()
    except Exception as error:  # the fault is the result
        return f"{FAULT}{type(error).__name__}: {error}".splitlines()[0]


def command(main: Callable[[list[str]], int]) -> None:
    """Run the command of a page, without the log of what it tries."""
    quiet()
    logging.getLogger("studio").setLevel(logging.ERROR)
    sys.exit(main(sys.argv[1:]))

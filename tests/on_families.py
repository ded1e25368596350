"""The methods' cases on the families' tiny models, as `tests.matrix` and `tests.simulated` try them."""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio.catalog import families, methods
from studio.catalog.run import Run
from studio.settings.run import Hardware
from studio.testing import small
from tests.cases import CASES


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

"""Every method in every way on the simulated device: `python -m tests.simulated [NAME ...]` writes `docs/simulated.md`.

Each method's case (`tests/cases.py`) is set up on each family's tiny model, trains two steps, draws, is saved and exported,
as if on a GPU, and is asked where its tensors are (`tests/simulated_cell.py`). Names of methods, families or ways limit what is run
anew; the other cells are kept in `simulated.json`. Anything else than counts or a refusal in one sentence is a fault, and
the command ends with 1.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from studio.catalog import families, methods
from tests import on_families, tree
from tests.cases import CASES
from tests.on_families import FAULT, command, outcome
from tests.simulated_cell import WAYS, tried

FILE = Path(__file__).with_name("simulated.json")
PAGE = tree.ROOT / "docs" / "simulated.md"
OWN = "own"
"""Stands for the model of a method's own case."""
REFUSED = "refused: "
Cells = dict[str, dict[str, dict[str, str]]]
"""Method to family to way to what came of it; empty where there is no such way."""
HEAD = """# Methods on a GPU that is not there

Made by `python -m tests.simulated`, on the simulated device (`studio/backend/simulated`): tensors have a place, a shape and a type
there, and no values. Each method of the smallest settings trained two steps on each family's tiny model, drew, was saved and exported.
In every cell trained weights were fp32 and frozen ones bf16, what a step needs was on the device, nothing was on it twice, and nothing stayed
on it that `--hardware.offload` or a cache had made needless.

A cell says how many values a step read back, each of which makes a GPU wait: `1` is the check that loss and gradient are finite. A
number in brackets is why a way was refused; `-` says that the method has no such way; an empty cell was not tried.

| way | what it is |
| --- | --- |
| adapter | the method's adapter on the denoiser |
| whole | all weights of the denoiser |
| text | a text encoder trains |
| offload | `--hardware.offload True`, text encoders train where the method's case has them train |
| cache | `--images.cache latents+text`, or `latents` |

"""


def read() -> Cells:
    """The cells as they were last found."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def wanted(names: list[str]) -> Iterator[tuple[str, str, str]]:
    """Method, family and way; all, or those in which every given name occurs."""
    drawing = set(on_families.drawing_methods())
    for method in (name for name in sorted(CASES) if name in methods.ours()):
        for family in families.cards() if method in drawing else [OWN]:
            for way in WAYS:
                if set(names) <= {method, family, way}:
                    yield method, family, way


def found(method: str, family: str, way: str) -> str:
    """What came of a cell, in words."""
    said = tried(method, "" if family == OWN else family, way)
    if said is None:
        return ""
    return f"{REFUSED}{said}" if isinstance(said, str) else said.words()


def render(cells: Cells) -> str:
    """The page."""
    reasons: list[str] = []
    names = [*families.cards(), OWN]
    lines = [_row("method", "way", *names), _row(*["---"] * (len(names) + 2))]
    for method, by_family in sorted(cells.items()):
        for way in WAYS:
            said = [by_family.get(name, {}).get(way) for name in names]
            if any(said):
                lines.append(_row(methods.card(method).title, way, *(_short(each, reasons) for each in said)))
    return HEAD + "\n".join([*lines, "", *(f"{n}. {reason}" for n, reason in enumerate(reasons, 1))]) + "\n"


def _short(cell: str | None, reasons: list[str]) -> str:
    if not cell:
        return "" if cell is None else "-"
    if not cell.startswith(REFUSED):
        return cell
    reason = cell.removeprefix(REFUSED)
    if reason not in reasons:
        reasons.append(reason)
    return f"({reasons.index(reason) + 1})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main(names: list[str]) -> int:
    """Try what is wanted, and write file and page."""
    faults = 0
    for method, family, way in wanted(names):
        said = outcome(lambda cell=(method, family, way): found(*cell))
        faults += (said or "").startswith(FAULT)
        cells = read()  # anew: several of this command may run
        cells.setdefault(method, {}).setdefault(family, {})[way] = said
        print(f"{method} {family} {way}: {said or '-'}", flush=True)
        FILE.write_text(json.dumps(cells, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(render(read()), encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    command(main)

"""Every method that trains an image model, on every family: `python -m tests.matrix [NAME ...]` writes `docs/families.md`.

Each method's case (`tests/cases.py`) trains two steps on each family's tiny model, stops after one and goes on, exports, and is
read back into a picture; or it is refused in one sentence. Names of methods or families limit what is run anew; the other
cells are kept in `matrix.json`. Anything else than a result or a refusal is a fault, and the command ends with 1.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load_file

from studio.catalog import families, methods
from studio.catalog.run import Run
from studio.errors import StudioError
from studio.records.runs import RunFolder
from studio.sampling.infer import run as draw
from studio.settings.run import Hardware
from studio.settings.sampling import SampleRequest, Text
from studio.testing import photos
from studio.training import checkpoint
from studio.training.train import resume, run_to_end
from studio.training.verify import differing_tensors, interrupt
from tests import tree
from tests.families_page import REFUSED, render
from tests.on_families import FAULT, command, drawing_methods, outcome, run_of, wanted

FILE = Path(__file__).with_name("matrix.json")
PAGE = tree.ROOT / "docs" / "families.md"
CPU = Hardware(device="cpu", precision="fp32")

FORMATS = {"pytorch_lora_weights.safetensors": "LoRA", "peft": "PEFT folder", "merged": "whole model"}
"""What a file or folder of an export is called on the page."""
ROUNDING = 1e-5
"""How far a weight may be off after going on, where the page says so; all else goes on bit for bit."""
Cells = dict[str, dict[str, str]]
"""Method to family to what came of it."""


def cell(method: str, family: str) -> str:
    """What comes of a method on a family, in words."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        try:
            run = run_of(method, family, folder, CPU)
            whole = run_to_end(dataclasses.replace(run, name="whole"))
        except StudioError as error:
            return REFUSED + str(error)
        return _gone_on(run, whole, folder)


def _gone_on(run: Run, whole: RunFolder, folder: Path) -> str:
    """What a run exported, which goes on exactly where it is stopped, and is read back."""
    interrupt(dataclasses.replace(run, name="halves"), 1)
    list(resume(folder / "runs" / "halves"))
    halves = RunFolder(folder / "runs" / "halves")
    found = f"exports {', '.join(_formats(whole))}"
    if odd := differing_tensors(whole, halves):
        off = _furthest(whole, halves)
        if off > ROUNDING:
            raise AssertionError(f"resumed with {len(odd)} other tensors, first {odd[0]}, by {off:.1g}")
        found += f"; goes on within {off:.0e}"
    _read_back(run, whole, folder)
    return found


def _furthest(one: RunFolder, two: RunFolder) -> float:
    """Largest difference of a weight."""
    kept = [checkpoint.latest(each.checkpoints) for each in (one, two)]
    left, right = (load_file(path / "weights.safetensors") for path in kept if path)
    return max(float((left[key] - right[key]).abs().max()) for key in left)


def _read_back(run: Run, trained: RunFolder, folder: Path) -> None:
    """Draw one step with what was exported."""
    looks = methods.card_of(run.method).needs_references
    reference = (photos(folder / "reference", 1) + "/0.png",) if looks else ()
    draw(
        SampleRequest(
            prompt=("a photo of a sks dog",), model=run.method.model, artifact=(str(trained.path),), reference=reference, steps=1,
            guidance=2.0, output=str(folder / "drawn"), grid=False, hardware=CPU, text=Text(),
        )
    )  # fmt: skip


def _formats(trained: RunFolder) -> Iterator[str]:
    for file in sorted(trained.export.iterdir()):
        if not file.name.startswith((".", "_")) and file.suffix != ".json":
            yield FORMATS.get(file.name, "kohya" if file.stem == trained.path.name else file.name)


def read() -> Cells:
    """The cells as they were last found."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def main(names: list[str]) -> int:
    """Try what is wanted, and write file and page."""
    cells, faults = read(), 0
    for method, family in wanted(names):
        found = outcome(lambda method=method, family=family: cell(method, family))
        faults += found.startswith(FAULT)
        cells.setdefault(method, {})[family] = found
        print(f"{method} x {family}: {found}", flush=True)
        known = {
            m: {f: cells[m][f] for f in families.cards() if f in cells[m]}
            for m in drawing_methods()
            if m in cells
        }
        FILE.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")

    PAGE.write_text(render(read()), encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    command(main)

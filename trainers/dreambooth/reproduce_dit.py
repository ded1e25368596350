"""The same on studio-tiny-dit, a transformer trained by flow matching.

With `--bench`, the card's preset on its subjects; without, the sweep that says whether its values suit this model.
"""

from collections.abc import Sequence

from studio.evidence.reproduce import Cell, Recipe, Reproduce
from studio.evidence.subjects import Variant, cells, run
from trainers.dreambooth.reproduce import EXAMINATION, NO_PRIOR, QUIET

MODEL = {"method.model": "studio-tiny-dit"}
VARIANTS = {"lora": Variant(preset="tiny", values={**QUIET, **MODEL})}
SWEEP = {
    "lora-5e-4": Variant(preset="tiny", values={**NO_PRIOR, **MODEL, "optim.lr": 5e-4}),
    "lora-1e-3": Variant(preset="tiny", values={**NO_PRIOR, **MODEL, "optim.lr": 1e-3}),
    "lora-2e-3": Variant(preset="tiny", values={**NO_PRIOR, **MODEL, "optim.lr": 2e-3}),
    "lora-prior": Variant(preset="tiny", values={**QUIET, **MODEL}),
    "full-1e-4": Variant(preset="tiny-full", values={**QUIET, **MODEL, "optim.lr": 1e-4}),
    "full-4e-4": Variant(preset="tiny-full", values={**QUIET, **MODEL, "optim.lr": 4e-4}),
}
"""Tried on the sample subject alone."""


def _cells(request: Reproduce) -> Sequence[Cell]:
    return cells(request, "dreambooth", VARIANTS if request.bench else SWEEP, EXAMINATION)


RECIPE = Recipe(
    title="DreamBooth on a transformer, on subjects that it has never seen",
    question=(
        "After training on five pictures, does a flow-matching transformer draw the subject on backgrounds that none of the "
        "five has, and does the class survive? Base and trained model draw the same prompts from the same seeds."
    ),
    cells=_cells,
    run=run,
)

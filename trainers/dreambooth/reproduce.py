"""Does DreamBooth learn a subject on the embedded model, and what does it cost the class?

With `--bench`, two presets of the card on its subjects; without, the sweep that the presets' values come from.
"""

from collections.abc import Sequence

from studio.evidence.reproduce import Cell, Recipe, Reproduce
from studio.evidence.subjects import Variant, cells, run

QUIET = {"preview.every": 0, "loop.checkpoint_every": 0}
"""What a table does not need: previews, checkpoints on the way."""
VARIANTS = {
    "lora": Variant(preset="tiny", values=QUIET),
    "full": Variant(preset="tiny-full", values=QUIET),
}
NO_PRIOR = {**QUIET, "method.prior": {"kind": "no-prior"}}
SWEEP = {
    "lora-5e-4": Variant(preset="tiny", values={**NO_PRIOR, "optim.lr": 5e-4}),
    "lora-1e-3": Variant(preset="tiny", values={**NO_PRIOR, "optim.lr": 1e-3}),
    "lora-2e-3": Variant(preset="tiny", values={**NO_PRIOR, "optim.lr": 2e-3}),
    "lora-400-steps": Variant(preset="tiny", values={**NO_PRIOR, "loop.steps": 400}),
    "lora-prior": Variant(preset="tiny", values=QUIET),
    "full-1e-4": Variant(preset="tiny-full", values={**QUIET, "optim.lr": 1e-4}),
    "full-2e-4": Variant(preset="tiny-full", values={**QUIET, "optim.lr": 2e-4}),
    "full-4e-4": Variant(preset="tiny-full", values={**QUIET, "optim.lr": 4e-4}),
}
"""What the presets were chosen from, tried on the sample subject alone; the benchmark has five others beside it."""
EXAMINATION = {"num_images": 2, "steps": 20, "guidance": 2.5}
"""Guidance: 2.5 kept subject and background on the embedded model; 4 drew them harder and flatter."""


def _cells(request: Reproduce) -> Sequence[Cell]:
    return cells(request, "dreambooth", VARIANTS if request.bench else SWEEP, EXAMINATION)


RECIPE = Recipe(
    title="DreamBooth on subjects that the base model has never seen",
    question=(
        "After training on five pictures, does the model draw the subject on backgrounds that none of the five has, "
        "and does the class survive? Base and trained model draw the same prompts from the same seeds."
    ),
    cells=_cells,
    run=run,
)

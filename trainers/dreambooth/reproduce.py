"""Does DreamBooth learn a subject on the embedded model, and what does it cost the class? Two presets of the card."""

from collections.abc import Sequence

from studio.reproduce import Cell, Recipe, Reproduce
from studio.subject_recipe import Variant, cells, run

QUIET = {"preview.every": 0, "loop.checkpoint_every": 0}
"""What a table does not need: previews, checkpoints on the way."""
VARIANTS = {
    "lora": Variant(preset="tiny", values=QUIET),
    "full": Variant(preset="tiny-full", values=QUIET),
}
EXAMINATION = {"num_images": 2, "steps": 20, "guidance": 2.5}
"""Guidance: 2.5 kept subject and background on the embedded model; 4 drew them harder and flatter."""


def _cells(request: Reproduce) -> Sequence[Cell]:
    return cells(request, "dreambooth", VARIANTS, EXAMINATION)


RECIPE = Recipe(
    title="DreamBooth on subjects that the base model has never seen",
    question=(
        "After training on five pictures, does the model draw the subject on backgrounds that none of the five has, "
        "and does the class survive? Base and trained model draw the same prompts from the same seeds."
    ),
    cells=_cells,
    run=run,
)

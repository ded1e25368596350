"""OFT against its rivals on subjects, with as many trained numbers each, and what training ten times as long does."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from studio.evidence.reproduce import Cell, Recipe, Reproduce
from studio.evidence.subjects import Variant, cells, run

STEPS, BATCH = 30, 4
LONGER = (3, 10)
"""Times as many steps, with the first seed: the stability that OFT claims."""
BASE: dict[str, Any] = {
    "preview.every": 0,
    "loop.checkpoint_every": 0,
    "loop.steps": STEPS,
    "loop.batch_size": BATCH,
}
ADAPTERS: dict[str, tuple[dict[str, Any], float]] = {
    "full": ({"kind": "full"}, 2e-4),
    "lora": ({"kind": "lora", "rank": 7, "layers": "blocks"}, 1e-3),
    "dora": ({"kind": "lora", "rank": 7, "dora": True, "layers": "blocks"}, 1e-3),
    "oft": ({"kind": "oft", "block_size": 32, "layers": "blocks"}, 2e-3),
    "coft": ({"kind": "oft", "block_size": 32, "radius": 1.0, "layers": "blocks"}, 2e-3),
    "boft": ({"kind": "boft", "block_size": 16, "factors": 2, "layers": "blocks"}, 2e-3),
}
"""Adapter and learning rate. 245 to 268 thousand trained numbers each on studio-tiny; full: 8.7 million."""
EXAMINATION = {"num_images": 2, "steps": 8, "guidance": 2.5}
NUM_PROMPTS = 4
"""The first prompts of each subject, to keep the table small."""


def _variant(name: str, times: int = 1) -> Variant:
    adapter, lr = ADAPTERS[name]
    own = {"method.adapter": adapter, "optim.lr": lr, "loop.steps": STEPS * times}
    return Variant(preset="tiny", values={**BASE, **own})


def _cells(request: Reproduce) -> Sequence[Cell]:
    """All subjects and seeds once; then all subjects for longer, with the first seed."""
    short = cells(request, "dreambooth", {name: _variant(name) for name in ADAPTERS}, EXAMINATION)
    longer = {
        f"{name} x{times}": _variant(name, times) for times in LONGER for name in ("lora", "oft", "coft")
    }
    more = cells(request, "dreambooth", longer, EXAMINATION)
    return [_shortened(cell) for cell in (*short, *(cell for cell in more if cell.seed == short[0].seed))]


def _shortened(cell: Cell) -> Cell:
    return dataclasses.replace(
        cell, settings={**cell.settings, "prompts": cell.settings["prompts"][:NUM_PROMPTS]}
    )


RECIPE = Recipe(
    title="OFT, COFT and BOFT against LoRA, DoRA and full finetuning on subjects",
    question=(
        f"With as many trained numbers (245 to 268 thousand; full: 8.7 million), {STEPS} steps of {BATCH} and the "
        "learning rate of each in the ratios that their papers use: who is closest to the subject, to the prompt, to "
        "the class as it was? And who still is after 3 and 10 times as many steps (the first seed)?"
    ),
    cells=_cells,
    run=run,
)

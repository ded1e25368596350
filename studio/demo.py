"""`studio demo`: the main job on sample pictures. Trains a subject on the embedded model and measures the result."""

import time
from pathlib import Path

from studio import assets
from studio.catalog import methods
from studio.commands import evaluation, training
from studio.console import Console
from studio.flags import flags

SUBJECT, CLASS_WORD, TOKEN = "unicorn", "animal", "sks"
MODEL = "studio-tiny-dit"
"""The embedded model that learns a subject best and soonest (docs/evidence/sweep)."""
GUIDANCE = "2"
"""A personalized model wants less guidance than its base: at 4 the embedded one's colors burn (measured)."""


def demo(argv: list[str], console: Console) -> None:
    """Train DreamBooth-LoRA on five pictures, then compare with the untrained model on pictures it never saw."""
    own, rest = flags.take(argv, "name", "output", "model")
    name = own.get("name", time.strftime("demo-%Y%m%d-%H%M%S"))
    output = own.get("output", "runs")
    console.print(f"1/2 training {TOKEN!r} on five pictures of a {SUBJECT}, which the model has never seen")
    where = ["--name", name, "--output", output, "--model", own.get("model", MODEL)]
    data = ["--data", str(assets.path(f"samples/{SUBJECT}")), "--class-word", CLASS_WORD, "--token", TOKEN]
    training.train([methods.card("dreambooth").name, *data, *where, *rest], console)
    console.print("2/2 drawing it on backgrounds that were in no picture, before and after training")
    exam = ["--data", str(assets.path(f"samples/{SUBJECT}_held_out")), "--artifact", str(Path(output) / name)]
    evaluation.subject([*exam, "--guidance", GUIDANCE], console)

"""Which training makes a classifier robust, and what does it cost? Five methods from the same net, by name."""

from studio.classifier_recipe import Variant, run, table
from studio.reproduce import Recipe

ATTACK = {"method.attack.eps": 8.0, "method.attack.steps": 4, "method.attack.step_size": 3.0}
"""A short attack inside of training, to keep the table affordable on a CPU; it is measured with 20 steps and more."""

VARIANTS = {
    "plain finetuning": Variant(kind="vit"),
    "PGD-AT": Variant(kind="adversarial", values={**ATTACK, "method.objective.kind": "pgd-at"}),
    "TRADES": Variant(kind="adversarial", values={**ATTACK, "method.objective.kind": "trades"}),
    "nullspace": Variant(kind="vit_nullspace"),
    "ARREST": Variant(kind="arrest", values=ATTACK),
}

RECIPE = Recipe(
    title="Robust training of classifiers",
    question=(
        "From the same trained net and with the same number of steps: how many pictures are told right clean, corrupted "
        "(15 corruptions) and attacked (20 steps of PGD; the four attacks of AutoAttack, shortened), and is the "
        "confidence calibrated?"
    ),
    cells=table(VARIANTS),
    run=run,
)

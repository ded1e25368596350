"""Which training makes a classifier robust, and what does it cost? Five methods from the same net, by name."""

from studio.evidence.classifiers.run import run
from studio.evidence.classifiers.units import Variant, table
from studio.evidence.reproduce import Recipe

VARIANTS = {
    "plain finetuning": Variant(kind="vit"),
    "PGD-AT": Variant(kind="adversarial", attacks=True, values={"method.objective.kind": "pgd-at"}),
    "TRADES": Variant(kind="adversarial", attacks=True, values={"method.objective.kind": "trades"}),
    "nullspace": Variant(kind="vit_nullspace"),
    "ARREST": Variant(kind="arrest", attacks=True),
}

RECIPE = Recipe(
    title="Robust training of classifiers",
    question=(
        "From the same trained net and with the same number of steps: how many pictures are told right clean, corrupted "
        "(15 corruptions) and attacked (20 steps of PGD on all pictures; standard AutoAttack and the same PGD on some of "
        "them), is the confidence calibrated, and what does weight interpolation with the net before give?"
    ),
    cells=table(VARIANTS, suite=True),
    run=run,
)

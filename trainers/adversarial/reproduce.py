"""PGD-AT and TRADES with two weights: the trade between clean and robust accuracy."""

from studio.classifier_recipe import Variant, run, table
from studio.reproduce import Recipe

ATTACK = {"method.attack.eps": 8.0, "method.attack.steps": 4, "method.attack.step_size": 3.0}
"""A short attack inside of training, to keep the table affordable on a CPU; it is measured with 20 steps and more."""

VARIANTS = {
    "PGD-AT": Variant(kind="adversarial", values={**ATTACK, "method.objective.kind": "pgd-at"}),
    **{
        f"TRADES, beta {beta}": Variant(
            kind="adversarial",
            values={**ATTACK, "method.objective.kind": "trades", "method.objective.beta": beta},
        )
        for beta in (1.0, 6.0)
    },
}

RECIPE = Recipe(
    title="Adversarial training",
    question="How do PGD-AT and TRADES trade clean for robust accuracy?",
    cells=table(VARIANTS),
    run=run,
)

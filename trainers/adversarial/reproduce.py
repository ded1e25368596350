"""PGD-AT and TRADES with two weights: the trade between clean and robust accuracy."""

from studio.evidence.classifiers.run import run
from studio.evidence.classifiers.units import Variant, table
from studio.evidence.reproduce import Recipe

VARIANTS = {
    "PGD-AT": Variant(kind="adversarial", attacks=True, values={"method.objective.kind": "pgd-at"}),
    **{
        f"TRADES, beta {beta:g}": Variant(
            kind="adversarial",
            attacks=True,
            values={"method.objective.kind": "trades", "method.objective.beta": beta},
        )
        for beta in (1.0, 6.0)
    },
}

RECIPE = Recipe(
    title="Adversarial training",
    question="How do PGD-AT and TRADES trade clean for robust accuracy?",
    cells=table(VARIANTS, severities=(3,), alphas=()),
    run=run,
)

"""What do distillation and replay each add? The paper's ablation: AFT, with either, with both."""

from studio.classifier_recipe import Variant, run, table
from studio.reproduce import Recipe

ATTACK = {"method.attack.eps": 8.0, "method.attack.steps": 4, "method.attack.step_size": 3.0}
"""A short attack inside of training, to keep the table affordable on a CPU; it is measured with 20 steps and more."""


def _part(*, distillation: bool, replay: bool) -> Variant:
    values = {"method.replay.on": replay} | ({} if distillation else {"method.distillation_weight": 0.0})
    return Variant(kind="arrest", values={**ATTACK, **values})


VARIANTS = {
    "AFT": _part(distillation=False, replay=False),
    "AFT + RGKD": _part(distillation=True, replay=False),
    "AFT + NR": _part(distillation=False, replay=True),
    "AFT + RGKD + NR": _part(distillation=True, replay=True),
}

RECIPE = Recipe(
    title="ARREST and its parts",
    question="Does ARREST keep more clean accuracy than adversarial finetuning at comparable robust accuracy?",
    cells=table(VARIANTS),
    run=run,
)

"""What do distillation and replay each add? The paper's ablation: AFT, with either, with both."""

from studio.evidence.classifiers.run import run
from studio.evidence.classifiers.units import Variant, table
from studio.evidence.reproduce import Recipe


def _part(*, distillation: bool, replay: bool) -> Variant:
    values = {"method.replay.on": replay} | ({} if distillation else {"method.distillation_weight": 0.0})
    return Variant(kind="arrest", attacks=True, values=values)


VARIANTS = {
    "AFT": _part(distillation=False, replay=False),
    "AFT + RGKD": _part(distillation=True, replay=False),
    "AFT + NR": _part(distillation=False, replay=True),
    "AFT + RGKD + NR": _part(distillation=True, replay=True),
}

RECIPE = Recipe(
    title="ARREST and its parts",
    question="Does ARREST keep more clean accuracy than adversarial finetuning at comparable robust accuracy?",
    cells=table(VARIANTS, severities=(3,), alphas=()),
    run=run,
)

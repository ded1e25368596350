"""Is it the nullspace that helps, or any noise? Learned token noise against the same size in other directions."""

from studio.evidence.classifiers.run import run
from studio.evidence.classifiers.units import Variant, table
from studio.evidence.reproduce import Recipe

VARIANTS = {
    kind: Variant(kind="vit_nullspace", values={"method.noise": kind})
    for kind in ("none", "learned", "random", "permuted")
}

RECIPE = Recipe(
    title="Nullspace finetuning and its controls",
    question=(
        "Does training on token noise that the encoder ignores help against corruptions and small perturbations without "
        "clean accuracy being lost, and do random noise and shuffled noise do the same?"
    ),
    cells=table(VARIANTS, eps=(1.0, 4.0), attacks=("fgsm", "pgd"), severities=(3,), alphas=()),
    run=run,
)

"""Settings of attacks. A radius is given in 255ths of the pixel range for linf, and as a length for l2. No torch."""

from typing import Annotated, Literal

from pydantic import Field

from studio.settings.config import Positive, config
from studio.settings.custom import Custom, Customs, by_name

Norm = Literal["linf", "l2"]
Radius = Annotated[float, Field(ge=0, le=255)]


@config
class Pgd:
    """Projected gradient descent (Madry et al. 2018, arXiv 1706.06083); one step of full length is FGSM."""

    norm: Norm = "linf"
    """Shape of the ball that the perturbation stays in."""
    eps: Radius = 8.0
    """Radius: 255ths of the pixel range for linf (8 is 8/255: RobustBench on CIFAR), a length for l2 (0.5)."""
    steps: Positive = 10
    """Gradient steps (10: TRADES' code and most adversarial training; evaluation takes 20)."""
    step_size: Radius = 0.0
    """Length of a step in the unit of eps; 0 takes eps / 4 for linf (2/255 at 8/255), 2.5 eps / steps for l2."""

    @property
    def radius(self) -> float:
        """Radius in units of the pixel range."""
        return self.eps / 255 if self.norm == "linf" else self.eps

    @property
    def stride(self) -> float:
        """Length of a step in units of the pixel range."""
        if self.step_size:
            return self.step_size / 255 if self.norm == "linf" else self.step_size
        return self.radius / 4 if self.norm == "linf" else 2.5 * self.radius / self.steps


AttackName = Literal[
    "fgsm", "pgd", "pgd-margin", "square", "patch", "transfer", "autoattack", "autoattack-mini"
]


@config
class Attacks:
    """Which attacks an evaluation runs, and how strong they are."""

    names: tuple[AttackName, ...] = ("fgsm", "pgd", "pgd-margin", "autoattack-mini")
    """fgsm, pgd, pgd-margin (CW loss), square (black box), patch (one square of any pixels), transfer (momentum
    attack from the surrogate), autoattack (standard suite), autoattack-mini (the same four, shortened)."""
    norm: Norm = "linf"
    """Shape of the ball."""
    eps: tuple[Radius, ...] = (8.0,)
    """Radii: 255ths of the pixel range for linf, lengths for l2 (linf: CIFAR 8, ImageNet 4 and 1; l2: 0.5)."""
    steps: Positive = 20
    """Steps of pgd (20: the convention of PGD-20)."""
    restarts: Positive = 1
    """Random starts of pgd; the worst counts."""
    queries: Positive = 5000
    """Queries of the square attack (5000: AutoAttack)."""
    patch_share: Annotated[float, Field(gt=0, le=1)] = 0.125
    """Side of the patch as a part of the picture's side (one 8 px token of 64 px; PatchFool attacks one token)."""
    custom: Customs = ()
    """Yours: (model, images (b c h w) in [0, 1], labels (b), *, eps, norm, seed) -> attacked images; eps is in units of the
    pixel range. Each is a path such as my.py:attack, or '{"path": ..., "options": ...}'; a change beyond eps is cut."""
    surrogate: str = ""
    """Model that transfer takes its gradients from: any name or folder that --model takes, with the same classes."""

    def own(self) -> dict[str, Custom]:
        """Attacks from outside, by their names in reports."""
        return by_name(self.custom)

    def told(self, eps: float) -> str:
        """A radius in words."""
        return f"{eps:g}/255" if self.norm == "linf" else f"l2 {eps:g}"

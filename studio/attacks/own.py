"""Attacks from outside, held to the ball that they were given. Pictures are in [0, 1].

Axes: `b` pictures, `c h w` picture.
"""

import logging

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from studio.attacks.ball import Ball
from studio.attacks.gradient import under_attack
from studio.backend.rng import seeded
from studio.catalog import outside
from studio.errors import StudioError
from studio.settings.custom import Custom

log = logging.getLogger(__name__)

SLACK = 1e-5
"""Rounding that is cut without a word, in units of the pixel range."""
FIELD = "attacks.custom"


class OwnAttack:
    """(model, images, labels, *, eps, norm, seed) -> attacked images, by the person's own code.

    The model is in eval mode and float32, gives logits, and has no gradients to its weights; `eps` is the radius in units
    of the pixel range, `norm` is linf or l2. All chance comes from `seed`, by which torch's generators are set, too.
    """

    def __init__(self, custom: Custom) -> None:
        """Find it.

        Raises:
            StudioError: It is not there, or does not take its options.
        """
        self._path = custom.path
        self._attack = outside.made(custom, what="Attack", field=FIELD)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        ball: Ball,
        seed: int,
    ) -> Float[Tensor, "b c h w"]:
        """Attacked pictures inside of the ball; what left it is cut, and told.

        Raises:
            StudioError: It gave something else than one finite picture a picture.
        """
        with under_attack(model, images.device), seeded(seed, images.device):
            given = self._attack(model, images.clone(), labels, eps=ball.radius, norm=ball.norm, seed=seed)
        moved = self._checked(given, images).detach().to(images)
        inside = ball.project(moved, images)
        away = float((moved - inside).abs().max())
        if away > SLACK:
            log.warning(
                "attack %s left its ball (%s, radius %.4f) or [0, 1] by up to %.4f in a pixel; it was cut back, and what "
                "is reported is of the cut pictures", self._path, ball.norm, ball.radius, away,
            )  # fmt: skip
        return inside

    def _checked(self, given: object, images: Tensor) -> Tensor:
        if not isinstance(given, Tensor) or given.shape != images.shape:
            found = (
                f"the shape {tuple(given.shape)}"
                if isinstance(given, Tensor)
                else f"a {type(given).__name__}"
            )
            raise StudioError(
                f"Attack {self._path!r} gave {found}; it must give pictures of the shape {tuple(images.shape)}.",
                field=FIELD,
            )
        if not bool(torch.isfinite(given).all()):
            raise StudioError(f"Attack {self._path!r} gave pixels that are not finite.", field=FIELD)
        return given

"""A linear head on the image tower, started from the names' features: linear probe and LP-FT.

Kumar, Raghunathan, Jones, Ma, Liang, 2022, arXiv 2202.10054; the start is that of WiSE-FT (arXiv 2109.01903).
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from studio.errors import StudioError
from studio.matching.matcher import Matcher
from studio.models.dual import DualEncoder


class ProbeMatcher(Matcher):
    """Knows the classes it was trained on, and no other names."""

    sees_names = False

    def __init__(self, model: DualEncoder, templates: Sequence[str], classes: Sequence[str]) -> None:
        super().__init__(model, templates)
        self.classes = tuple(classes)
        start = super().names(classes).detach()
        self.head = nn.Linear(start.shape[1], len(classes))
        self.head.weight.data.copy_(start)
        self.head.bias.data.zero_()

    @override
    def names(self, names: Sequence[str]) -> Float[Tensor, "c d"]:
        return self.head.weight[self._rows(names)]

    @override
    def logits(self, features: Float[Tensor, "b d"], names: Sequence[str]) -> Float[Tensor, "b c"]:
        found = self.head(features)[:, self._rows(names)]
        return self.model.logit_scale.detach() * found

    def _rows(self, names: Sequence[str]) -> list[int]:
        if strange := set(names) - set(self.classes):
            raise StudioError(
                f"A linear head knows only its {len(self.classes)} classes, not {min(strange)!r}; ask about those, or "
                "tune in another way.",
                field="tuning",
            )
        return [self.classes.index(name) for name in names]

"""Drawing with an IP-Adapter: the references as image tokens, one guidance scale for text and picture together.

    eps = eps(null text, null picture) + w (eps(text, pictures) - eps(null text, null picture))

The null picture goes through the projection like any other, as in training. Several references lay their tokens side by
side. Strength is the paper's lambda.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Bool
from torch import Tensor
from typing_extensions import override

from studio.contracts.sampling import Request
from studio.models.base import Family
from studio.models.vision_tower import squares
from studio.records.trained import Trained
from studio.same_subject.references import SeeingEdit
from trainers.ip_adapter.files import Loaded, load


class ReferenceEdit(SeeingEdit):
    """Lets every picture look at the request's references."""

    def __init__(self, loaded: Loaded, family: Family, strength: float = 1.0) -> None:
        super().__init__(family, strength)
        self.loaded = loaded

    @override
    def begin(self, request: Request, scheduler: Any) -> None:
        """Look at the references once.

        Raises:
            StudioError: There are none.
        """
        del scheduler
        network, tower = self.loaded.network, self.loaded.tower
        pictures = squares(request.references, tower)
        with torch.no_grad():
            self._tokens = rearrange(network(tower(pictures)), "n k d -> 1 (n k) d")
            self._null = repeat(network(tower.blank()), "1 k d -> 1 (n k) d", n=len(pictures))

    @override
    def seeing(self, rows: Bool[Tensor, " r"]) -> AbstractContextManager[None]:
        tokens = torch.where(rows[:, None, None], self._tokens, self._null)
        return self.loaded.network.shown(self.family, tokens, self.strength)


def ip_adapter_edit(trained: Trained, family: Family, strength: float) -> ReferenceEdit:
    """The edit of a trained folder or a public file."""
    return ReferenceEdit(load(trained, family), family, strength)

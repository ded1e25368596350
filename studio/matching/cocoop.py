"""CoCoOp: the context depends on the picture.

    Zhou, Yang, Loy, Liu, "Conditional Prompt Learning for Vision-Language Models", 2022, arXiv 2203.05557

    v_m(x) = v_m + pi,   pi = h(x), a two-layer net on the picture's feature    (section 3.2)

Cost: one pass of the text tower for each picture and name.
"""

from collections.abc import Sequence

from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from studio.matching.config import Cocoop, Coop
from studio.matching.context import text_context
from studio.matching.coop import PromptMatcher
from studio.models.dual import DualEncoder


class ConditionalMatcher(PromptMatcher):
    """Names in a context that a small net shifts by what it sees."""

    def __init__(self, model: DualEncoder, settings: Cocoop, classes: Sequence[str], width: int) -> None:
        super().__init__(model, Coop(phrase=settings.phrase), classes)
        inner = max(width // settings.squeeze, 1)
        self.net = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, self.context.shape[-1]))

    @override
    def logits(self, features: Float[Tensor, "b d"], names: Sequence[str]) -> Float[Tensor, "b c"]:
        ids, slots = self.tokens(names)
        count = len(features)
        context = rearrange(self.net(features), "b w -> b 1 w") + self.context
        each = repeat(context, "b m w -> (b c) m w", c=len(names))
        with text_context(self.model, repeat(slots, "c l -> (b c) l", b=count), [each]):
            found = self.model.encode_tokens(repeat(ids, "c l -> (b c) l", b=count))
        texts = rearrange(F.normalize(found, dim=-1), "(b c) d -> b c d", b=count)
        return self.model.logit_scale * (features[:, None] * texts).sum(-1) + self.model.logit_bias

"""The class-conditional feature generator, and the mean of neighbors in its place.

Axes: `b` features to invent, `k` known classes to invent from, `d` width of the common space.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from studio.errors import StudioError

DROPOUT = 0.1
"""Of the attention (official code)."""


class Generator(nn.Module):
    """G(Q, K, V) = normalize(FFN(Q) + MHA(Q, K, V)) (section 3.2, as released: no norm, no residual of Q)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise StudioError(
                f"heads {heads} does not divide the {width} features of the model; choose a divisor, such as 4.",
                field="heads",
            )
        self.attention = nn.MultiheadAttention(width, heads, dropout=DROPOUT, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(
        self, query: Float[Tensor, "b d"], keys: Float[Tensor, "b k d"], values: Float[Tensor, "b k d"]
    ) -> Float[Tensor, "b d"]:
        """Unit features of classes.

        Args:
            query: Text features of the classes to invent.
            keys: Text features of known classes.
            values: Their image features.
        """
        found, _ = self.attention(query[:, None], keys, values, need_weights=False)
        return F.normalize(self.feed(query) + found[:, 0], dim=-1)

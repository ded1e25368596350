"""New rows of an embedding table as parameters of their own: no other row has a gradient or an optimizer state.

Axes: `b` prompts, `l` tokens, `n` vectors, `d` width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Rows(nn.Module):
    """The vectors of one new word in one text encoder, put into the embedding's output by a hook.

    Args:
        table: The encoder's token embedding, already as long as the tokenizer.
        ids: Token numbers of the word's vectors.
        start: First values.
        norm: `free`, `clip` or `fixed` against the median length of the vocabulary.
    """

    ids: Tensor

    def __init__(
        self, table: nn.Embedding, ids: Int[Tensor, " n"], start: Float[Tensor, "n d"], *, norm: str
    ) -> None:
        super().__init__()
        self.vectors = nn.Parameter(start.detach().float().clone())
        self.register_buffer("ids", ids, persistent=False)  # part of every checkpoint
        self._numbers: list[int] = ids.tolist()  # the device is not asked for them in every step
        self.limit = float(table.weight.detach().float().norm(dim=1).median())
        self.norm = norm
        table.register_forward_hook(self._put)

    def _put(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        del module
        for row, index in enumerate(self._numbers):
            here = (inputs[0] == index).unsqueeze(-1)
            output = torch.where(here, self.vectors[row].to(output.dtype), output)
        return output

    @torch.no_grad()
    def renorm(self) -> None:
        """Bring the vectors back to the length of ordinary words."""
        if self.norm == "free":
            return
        length = self.vectors.norm(dim=1, keepdim=True)
        too_long = length > self.limit if self.norm == "clip" else torch.ones_like(length, dtype=torch.bool)
        self.vectors.copy_(torch.where(too_long, self.vectors * self.limit / length, self.vectors))

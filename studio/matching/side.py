"""AdaptFormer on both towers: bottlenecks beside the feed-forward layers (studio/models/adaptformer.py says the equation).

The library's blocks stay as they are: while the matcher looks or reads, hooks take what enters a block's second norm
(x1) and add the bottleneck's answer to what leaves the block.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from studio.matching.matcher import Matcher
from studio.models.adaptformer import Bottleneck, Shape
from studio.models.dual import DualEncoder, Tower, no_blocks

SECOND_NORMS = ("ln_2", "layer_norm2", "norm2")
"""What open_clip, transformers and timm call the norm before the feed-forward layers."""


class SideMatcher(Matcher):
    """Frozen towers with a bottleneck beside each block's feed-forward layers; it starts as the frozen model."""

    def __init__(self, model: DualEncoder, templates: Sequence[str], shape: Shape) -> None:
        super().__init__(model, templates)
        self.sides = nn.ModuleDict(
            {
                tower: nn.ModuleList(Bottleneck(model.width(tower), shape) for _ in model.blocks(tower))
                for tower in ("image", "text")
            }
        )

    @override
    def images(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        with self._beside("image"):
            return self.model.images(images)

    @override
    def texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        with self._beside("text"):
            return self.model.texts(texts)

    @contextmanager
    def _beside(self, tower: Tower) -> Iterator[None]:
        """The bottlenecks of a tower at work."""
        sides: nn.ModuleList = self.sides[tower]  # pyright: ignore[reportAssignmentType]  # made above
        with ExitStack() as stack:
            for block, side in zip(self.model.blocks(tower), sides, strict=True):
                seen: list[Tensor] = []
                norm: Any = _second_norm(block, self.model.name, tower)
                first = norm.register_forward_pre_hook(lambda _m, inputs, seen=seen: seen.append(inputs[0]))
                last = block.register_forward_hook(
                    lambda _m, _i, output, seen=seen, side=side: output + side(seen.pop())
                )
                stack.callback(first.remove)
                stack.callback(last.remove)
            yield


def _second_norm(block: nn.Module, name: str, tower: Tower) -> nn.Module:
    parts = dict(block.named_children())
    found = next((parts[key] for key in SECOND_NORMS if key in parts), None)
    if found is None:
        raise no_blocks(name, tower)
    return found

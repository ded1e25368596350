"""AdaptFormer: bottlenecks in parallel to the feed-forward layers of a vision transformer.

    Chen, Ge, Tong, Wang, Song, Wang, Luo, "AdaptFormer: Adapting Vision Transformers for Scalable Visual Recognition",
    2022, arXiv 2205.13535

    x1 = x + Attn(LN(x));  x2 = x1 + MLP(LN(x1)) + s * Up(Dropout(ReLU(Down(x1))))       (eq. 1 to 3, official code)

The bottleneck reads x1 itself, without a norm, as released. It is not linear, so it cannot be merged into the weights.
Axes: `b` pictures, `n` tokens, `d` width.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from studio.errors import StudioError

FILE = "adaptformer.safetensors"


@dataclass(frozen=True)
class Shape:
    """What a file of bottlenecks says about them."""

    bottleneck: int
    scale: float
    dropout: float


class Bottleneck(nn.Module):
    """s * Up(Dropout(ReLU(Down(x)))); zero at the start, as Up is."""

    def __init__(self, width: int, shape: Shape) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, shape.bottleneck), nn.Linear(shape.bottleneck, width)
        self.dropout, self.scale = nn.Dropout(shape.dropout), shape.scale
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for value in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(value)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """What is added to the block's output."""
        return self.scale * self.up(self.dropout(self.down(x).relu()))


class AdaptedBlock(nn.Module):
    """A timm block with a bottleneck beside its feed-forward layer."""

    def __init__(self, block: Block, shape: Shape) -> None:
        super().__init__()
        self.block = block
        self.bottleneck = Bottleneck(block.norm1.normalized_shape[0], shape)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """The block's own two residual steps; the bottleneck stands outside of DropPath."""
        block = self.block
        x1 = x + block.drop_path1(block.ls1(block.attn(block.norm1(x))))
        return x1 + block.drop_path2(block.ls2(block.mlp(block.norm2(x1)))) + self.bottleneck(x1)


def attach(network: nn.Module, shape: Shape, name: str) -> frozenset[str]:
    """Put a bottleneck on every block; gives the names of the new parameters.

    Raises:
        StudioError: The model's blocks are not plain transformer blocks.
    """
    blocks = dict(network.named_children()).get("blocks")
    if not isinstance(blocks, nn.Sequential) or not all(isinstance(block, Block) for block in blocks):
        raise StudioError(
            f"AdaptFormer needs plain transformer blocks, which {name!r} ({type(network).__name__}) does not have; choose a "
            "vit_* or deit_* model, or --tuning adapted.",
            field="tuning",
        )
    for index, block in enumerate(blocks):
        blocks[index] = AdaptedBlock(block, shape)  # pyright: ignore[reportArgumentType]  # checked above
    return frozenset(key for key, _ in network.named_parameters() if ".bottleneck." in key)


def detach(network: nn.Module) -> None:
    """Take the bottlenecks off; the network is the plain one again."""
    for blocks in [m for m in network.modules() if isinstance(m, nn.Sequential)]:
        for index, block in enumerate(blocks):
            if isinstance(block, AdaptedBlock):
                blocks[index] = block.block


def bottlenecks(network: nn.Module) -> dict[str, Tensor]:
    """The bottlenecks' tensors by name, live."""
    return {key: value for key, value in network.state_dict(keep_vars=True).items() if ".bottleneck." in key}


def save(network: nn.Module, shape: Shape, folder: Path) -> Path:
    """Write only the bottlenecks."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in bottlenecks(network).items()}
    save_file(tensors, folder / FILE, metadata={"format": "pt", "adaptformer": json.dumps(asdict(shape))})
    return folder / FILE


def load(network: nn.Module, folder: Path, name: str) -> None:
    """Put the bottlenecks of a folder onto a plain network."""
    with safe_open(folder / FILE, "pt") as file:
        shape = Shape(**json.loads(file.metadata()["adaptformer"]))
    attach(network, shape, name)
    network.load_state_dict(load_file(folder / FILE), strict=False)

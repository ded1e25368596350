"""Settings and card of COLA."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.sticker_config import StickerPairs
from studio.errors import StudioError
from studio.settings.config import Count, Positive, config

STICKERS = "stickers"


@config
class Multimodal:
    """COLA's adapter: a small transformer over the tokens of both towers, asked by learned queries."""

    layers: Positive = 1
    """Layers of its encoder, and of its decoder (official code: 1)."""
    heads: Positive = 4
    """Attention heads; they divide the width of the text tower (official code: 4)."""
    feed_forward: Positive = 2048
    """Width inside of each layer (official code: torch's default of 2048)."""
    queries: Positive = 1
    """Learned queries; the best one counts (official code: 1)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout in the adapter (official code: torch's default of 0.1)."""
    grid: Count = 0
    """Patches are averaged to a grid of so many by so many, which is cheaper; 0 keeps all (official code)."""


@config
class LinearProbe:
    """A linear map on the features of each tower, the identity at the start: the paper's first baseline."""


@config
class PromptTuning:
    """Learned vectors in front of every caption (CoOp, arXiv 2109.01134): the paper's second baseline."""

    tokens: Annotated[int, Field(ge=1, le=16)] = 4
    """Learned vectors (CoOp: 4 to 16); they take room from the caption."""


@config
class Cola:
    """Teach a frozen CLIP which attribute belongs to which object."""

    model: Annotated[str, Field(min_length=1)] = "studio-tiny-clip"
    """The frozen CLIP: studio-tiny-clip, an open_clip or transformers name, a folder."""
    data: Annotated[str, Field(min_length=1)] = STICKERS
    """A JSON file of twins (image1, caption1, image2, caption2: each caption fits its own image), or 'stickers'."""
    scenes: StickerPairs = StickerPairs()
    """What the sticker scenes show."""
    head: Multimodal | LinearProbe | PromptTuning = Multimodal()
    """What is trained."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """The adapter's scores are divided by it in the loss (ours; the other heads have CLIP's own)."""
    twin_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the loss among twins alone, each of two pictures with each of two captions (ours: among a whole batch, twins are few
    of the pairs and teach little; 0 is the paper's loss)."""


def check(settings: Cola) -> None:
    """Refuse a file that is not there.

    Raises:
        StudioError: Names the setting.
    """
    if settings.data != STICKERS and not Path(settings.data).is_file():
        raise StudioError(
            f"There is no file {settings.data!r}; --data takes a JSON file of twins, or stickers.",
            field="data",
        )


METHOD = Card(
    name="cola",
    title="COLA",
    summary="an adapter on a frozen CLIP that tells which attribute belongs to which object",
    paper="Ray et al. 2023, arXiv 2305.03689",
    config=Cola,
    trainer="trainers.cola.trainer:ColaTrainer",
    offers=("matching",),
    check=check,
    presets={
        "tiny": Preset(
            {"optim.lr": 5e-4, "optim.schedule": "cosine", "optim.warmup": 20,
             "loop.batch_size": 12, "loop.steps": 300, "loop.checkpoint_every": 100},
            suits=Suits(small=True),
            note="ours, for the embedded CLIP",
        ),
        "clip": Preset(
            {"optim.lr": 1e-4, "optim.schedule": "cosine", "optim.warmup": 100,
             "loop.batch_size": 32, "loop.steps": 2000, "loop.checkpoint_every": 500},
            suits=Suits(small=False),
            note="ours, untried on large data: the official code has no settings of training; a batch is 32 x 32 joint passes",
        ),
    },
)  # fmt: skip

"""Settings and card of textual inversion."""

from typing import Annotated, Literal

from pydantic import Field

from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.config import Images
from studio.diffusion.config import Denoising
from studio.records import places
from studio.settings.config import config
from studio.settings.sampling import Parts, Text


@config
class TextualInversion:
    """Learn one new word from three to five pictures."""

    data: str
    """Folder of pictures of the subject or style; captions beside them are not used."""
    model: str = "studio-tiny"
    """Base model, of a family whose text is read by CLIP encoders."""
    token: Annotated[str, Field(min_length=1)] = "<subject>"
    """The new word; it must not exist in the vocabulary."""
    class_word: Annotated[str, Field(min_length=1)] = "object"
    """Coarse word that the new one starts from; one token a vector (paper, section 4.1)."""
    vectors: Annotated[int, Field(ge=1, le=16)] = 1
    """Vectors of the word (paper: 1; more gave no overall gain there)."""
    learns: Literal["object", "style"] = "object"
    """What the word stands for, which decides the training prompts."""
    norm: Literal["free", "clip", "fixed"] = "clip"
    """free: as in the paper; clip: never longer than the median word; fixed: always as long (arXiv 2512.13672)."""
    parts: Parts = Parts()
    """What the model's file does not say of itself, and parts in place of its own."""
    text: Text = Text()
    """How captions become embeddings; what is drawn from the result reads prompts alike."""
    denoising: Denoising = Denoising()
    """The loss."""
    images: Images = Images()
    """How pictures are read."""


def check(settings: TextualInversion) -> None:
    """Refuse a folder that is not there.

    Raises:
        StudioError: Names the setting.
    """
    places.folder(settings.data, "data")


METHOD = Card(
    name="textual_inversion",
    title="Textual inversion",
    summary="learn a new word for a subject or a style; no weight changes",
    paper="Gal et al., ICLR 2023, arXiv 2208.01618",
    config=TextualInversion,
    trainer="trainers.textual_inversion.trainer:TextualInversionTrainer",
    check=check,
    offers=("text-to-image", "subject", "style"),
    presets={
        "tiny": Preset(
            {"loop.steps": 300, "loop.batch_size": 8, "optim.lr": 2e-2, "optim.weight_decay": 0.0,
             "method.images.cache": "latents", "preview.every": 100},
            suits=Suits(small=True),
            note="the embedded model (ours)",
        ),
        "sdxl": Preset(
            {"loop.steps": 500, "loop.batch_size": 4, "loop.accumulate": 4, "optim.lr": 2e-3},
            suits=Suits(families=("sdxl",), small=False),
            note="diffusers' examples/textual_inversion/README_sdxl.md: 5e-4, scaled by 4 parts of a batch to 2e-3, 500 steps",
        ),
        "sd": Preset(
            {"loop.steps": 3000, "loop.batch_size": 4, "loop.accumulate": 4, "optim.lr": 2e-3},
            suits=Suits(process="discrete", small=False),
            note="diffusers' examples/textual_inversion/README.md: 5e-4, scaled by 4 parts of a batch to 2e-3, 3,000 steps",
        ),
        "flow": Preset(
            {"loop.steps": 700, "loop.batch_size": 1, "optim.name": "prodigy", "optim.lr": 1.0,
             "hardware.gradient_checkpointing": True},
            suits=Suits(process="flow", small=False),
            note="diffusers' examples/advanced_diffusion_training/README_flux.md, textual inversion alone: Prodigy, 1.0, 700 steps",
        ),
        "paper": Preset(
            {"loop.steps": 5000, "loop.batch_size": 4, "optim.lr": 5e-3, "optim.weight_decay": 0.0},
            note="paper: 5,000 steps, base rate 0.005",
        ),
    },
)  # fmt: skip

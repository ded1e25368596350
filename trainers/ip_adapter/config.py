"""Settings and card of IP-Adapter."""

from typing import Annotated, Literal

from pydantic import Field

from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.view_config import Views, check_data
from studio.diffusion.config import Denoising
from studio.errors import StudioError
from studio.records import places, trained
from studio.settings.config import Fraction, Positive, config
from studio.settings.sampling import Parts, Text


@config
class Global:
    """Four tokens from the vector of the whole picture (paper, section 3.2.1)."""


@config
class Plus:
    """A resampler of four blocks over the patches (the authors' IP-Adapter Plus)."""

    queries: Positive = 16
    """Tokens that it gives."""
    heads: Positive = 12
    """Heads of 64 (Plus: 12; SDXL 20)."""
    width: Positive = 768
    """Width of a block (Plus: 768; SDXL 1280)."""


@config
class Patches:
    """Every patch as a token of its own (the layout of the authors' full-face file)."""


Projection = Global | Plus | Patches


@config
class IpAdapter:
    """Learn a second cross-attention that reads a picture of the subject; everything else is frozen."""

    data: str = "stickers"
    """Folder of pictures with captions and masks, or stickers for the embedded scenes."""
    model: str = "studio-tiny"
    """Base model."""
    start: str = ""
    """Weights to go on from: a run, a folder, or a file of others (IP-Adapter, Plus, full face); empty starts anew."""
    encoder: str = "studio-tiny-clip"
    """Frozen image encoder: a name of the hub or a folder of transformers' CLIP, studio-tiny-clip, an open_clip name."""
    layer: Annotated[int, Field(le=-1)] = -2
    """Layer of its patch tokens, from the end (Plus: the one before the last)."""
    projection: Projection = Global()
    """What becomes of the encoder's output: global, plus or patches."""
    drop_text: Fraction = 0.05
    """Share of rows without their text alone (official code: 0.05)."""
    drop_image: Fraction = 0.05
    """Share of rows without their picture alone (official code: 0.05)."""
    drop_both: Fraction = 0.05
    """Share of rows without both (official code: 0.05)."""
    views: Views = Views()
    """How pictures and views of their objects are made."""
    parts: Parts = Parts()
    """What the model's file does not say of itself, and parts in place of its own."""
    text: Text = Text()
    """How captions become embeddings; what is drawn from the result reads prompts alike."""
    denoising: Denoising = Denoising()
    """The loss."""
    num_shown: Positive = 4
    """References drawn in previews."""
    precision: Literal["fp32", "fp16"] = "fp16"
    """Precision of the file."""

    def __post_init__(self) -> None:
        """Refuse drops that leave nothing.

        Raises:
            StudioError: They come to 1 or more.
        """
        total = self.drop_text + self.drop_image + self.drop_both
        if total >= 1:
            raise StudioError(
                f"drop_text, drop_image and drop_both come to {total:.2f}; they must stay below 1 together, such as 0.05 each.",
                field="drop_both",
            )


def check(settings: IpAdapter) -> None:
    """Refuse a folder that is not there, and weights to go on from that read another encoder."""
    check_data(settings.data)
    if settings.start:
        trained.refuse_other(places.start(settings.start, "ip_adapter"), settings, ("encoder", "layer"))


METHOD = Card(
    name="ip_adapter",
    title="IP-Adapter",
    summary="a subject from a reference picture: a second cross-attention that reads it, trained once",
    paper="Ye et al. 2023, arXiv 2308.06721",
    config=IpAdapter,
    trainer="trainers.ip_adapter.trainer:IpAdapterTrainer",
    artifact="trainers.ip_adapter.edit:ip_adapter_edit",
    needs_references=True,
    check=check,
    offers=("text-to-image", "subject", "reference"),
    presets={
        "tiny": Preset(
            {
                "method.projection": {"kind": "patches"},
                "method.layer": -6,
                "method.views.background": 0.9,
                "method.views.flip": 0.0,
                "method.views.rotation": 10.0,
                "loop.steps": 3000,
                "loop.batch_size": 32,
                "loop.log_every": 20,
                "loop.checkpoint_every": 200,
                "optim.lr": 2e-3,
                "optim.schedule": "linear",
                "optim.warmup": 50,
                "optim.ema": 0.99,
                "preview.every": 200,
                "preview.guidance": 2.5,
            },
            suits=Suits(small=True),
            note="the embedded model (ours): how ip-adapter-tiny was made; 20 times the paper's rate, as the schedule is "
            "short",
        ),
        "plus-sdxl": Preset(
            {
                "method.encoder": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
                "method.projection": {"kind": "plus", "heads": 20, "width": 1280},
                "loop.steps": 1_000_000,
                "loop.batch_size": 64,
                "optim.lr": 1e-4,
            },
            suits=Suits(families=("sdxl",), small=False, chosen=("plus",)),
            note="official ip-adapter-plus_sdxl_vit-h: 20 heads, width 1280; rates of tutorial_train_plus.py",
        ),
        "plus": Preset(
            {
                "method.encoder": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
                "method.projection": {"kind": "plus"},
                "loop.steps": 1_000_000,
                "loop.batch_size": 64,
                "optim.lr": 1e-4,
            },
            suits=Suits(small=False, chosen=("plus",)),
            note="official code, tutorial_train_plus.py: AdamW, 1e-4, weight decay 0.01",
        ),
        "paper": Preset(
            {
                "method.encoder": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
                "loop.steps": 1_000_000,
                "loop.batch_size": 64,
                "optim.lr": 1e-4,
                "optim.weight_decay": 1e-2,
            },
            suits=Suits(small=False),
            note="paper, section 4.1, on SD 1.5; official tutorial_train_sdxl.py has the same rate; transformers are ours",
        ),
    },
)

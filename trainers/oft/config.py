"""Settings and card of controllable generation with OFT."""

from typing import Annotated

from pydantic import Field

from studio.adapters.config import Adapter, Export, Oft
from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.config import Images
from studio.data.sticker_config import Stickers
from studio.diffusion.config import Denoising
from studio.settings.config import Fraction, Positive, config
from studio.settings.sampling import Parts, Text


@config
class Edges:
    """Outlines, found by Canny's detector (paper: canny edge to image)."""

    low: Fraction = 0.1
    """Gradients below are no edge."""
    high: Fraction = 0.2
    """Gradients above are an edge; between, only next to one."""

    def __post_init__(self) -> None:
        """Check rules between fields."""
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}; raise high")


@config
class Colors:
    """A coarse layout of colors: what a rough painting gives."""

    cells: Annotated[int, Field(ge=2)] = 8
    """Cells along each side of the picture."""


@config
class Regions:
    """Flat regions: colors reduced to few levels after smoothing, as a segmentation without labels."""

    levels: Annotated[int, Field(ge=2, le=16)] = 3
    """Levels of each color channel."""


Control = Edges | Colors | Regions


@config
class OftControl:
    """Draw pictures that follow a control signal, by rotating weights instead of copying the network."""

    data: str = "stickers"
    """Folder of pictures with captions; stickers draws the embedded scenes. Signals are taken from the pictures."""
    model: str = "studio-tiny"
    """Base model: studio-tiny, studio-tiny-dit, a short name (sd15, sdxl, sd3, flux-dev), a folder, a .safetensors file, a hub name."""
    control: Control = Edges()
    """What a picture has to follow: edges, colors or regions."""
    adapter: Adapter = Oft()
    """How the denoiser's weights may move (paper: 4 blocks a layer; COFT with radius 1e-3, in another unit)."""
    prompt: str = "a photo"
    """Caption of pictures that have none."""
    hint_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate of the hint encoder; 0 takes the adapter's."""
    drop_hint: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of examples without a signal, so that the model also draws freely (ours)."""
    parts: Parts = Parts()
    """What the model's file does not say of itself, and parts in place of its own."""
    text: Text = Text()
    """How captions become embeddings; what is drawn from the result reads prompts alike."""
    denoising: Denoising = Denoising()
    """The loss."""
    images: Images = Images()
    """How a folder's pictures are read; the cache stays off, as signals need the pictures."""
    scenes: Stickers = Stickers()
    """The embedded scenes."""
    num_shown: Positive = 4
    """Signals that previews and scores are made for."""
    export: Export = Export()
    """What to write at the end, beside hint.safetensors."""


METHOD = Card(
    name="oft",
    title="OFT control",
    summary="draw pictures that follow edges or a layout of colors",
    paper="Qiu et al., NeurIPS 2023, arXiv 2306.07280",
    config=OftControl,
    trainer="trainers.oft.trainer:OftControlTrainer",
    offers=("text-to-image", "control"),
    presets={
        "tiny": Preset(
            {
                "method.adapter": {"kind": "oft", "layers": "blocks", "block_size": 16},
                "method.prompt": "a sticker",
                "method.hint_lr": 1e-3,
                "method.denoising.times": {"kind": "logit-normal-times", "mean": 1.0},
                "loop.steps": 600,
                "loop.batch_size": 16,
                "optim.lr": 2e-3,
            },
            suits=Suits(small=True),
            note="the embedded model, on the embedded scenes",
        ),
        "paper": Preset(
            {
                "method.adapter": {"kind": "oft", "blocks": 4, "block_size": 0},
                "optim.lr": 1e-5,
                "loop.batch_size": 16,
            },
            suits=Suits(small=False, chosen=("oft",)),
            note="paper, appendix: SD 1.5, 4 blocks a layer, AdamW, lr 1e-5, batch 16, 20 epochs",
        ),
        "adapter": Preset(
            {"optim.lr": 1e-4, "loop.batch_size": 16},
            suits=Suits(small=False, chosen=("adapter",)),
            note="ours, for other adapters than OFT: LoRA's usual rate in diffusers' scripts, the paper's batch",
        ),
        "whole": Preset(
            {"optim.lr": 1e-5, "loop.batch_size": 4},
            suits=Suits(small=False, chosen=("whole",)),
            note="diffusers' examples/controlnet/README.md (SD 1.5), README_sdxl.md and README_sd3.md: lr 1e-5, batch 4",
        ),
    },
)

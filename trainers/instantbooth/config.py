"""Settings and card of InstantBooth."""

from typing import Annotated, Literal

from pydantic import Field

from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.view_config import STICKERS, Views, check_data
from studio.diffusion.config import Denoising
from studio.errors import StudioError
from studio.records import places, trained
from studio.settings.config import Fraction, Positive, config
from studio.settings.sampling import Parts, Text

Rate = Annotated[float, Field(ge=0)]


@config
class InstantBooth:
    """Learn to draw any subject of a class from pictures: a concept token and gated adapter layers."""

    data: str = STICKERS
    """Folder of pictures with captions and masks, or stickers for the embedded scenes."""
    model: str = "studio-tiny"
    """Base model: a U-Net (sd1, sd2, sdxl), or sd3 (ours: the paper has U-Nets alone)."""
    start: str = ""
    """InstantBooth weights to go on from: a run, a folder or instantbooth-tiny; empty starts at the base model's attention."""
    encoder: str = "studio-tiny-clip"
    """Frozen image encoder: a name of the hub or a folder of transformers' CLIP, studio-tiny-clip, an open_clip name."""
    layer: Annotated[int, Field(le=-1)] = -1
    """Layer of its patch tokens, from the end."""
    tiles: Positive = 1
    """The encoder's patches come from so many tiles along each side of a view: finer ones (ours; paper: 1)."""
    placeholder: Annotated[str, Field(pattern=r"^\w+$")] = "sks"
    """Word that stands for the subject, before its class: "a photo of a sks person"."""
    class_words: tuple[str, ...] = ()
    """Words for the class in captions of a folder, such as person man woman; the placeholder is put before them."""
    blocks: str = ""
    """Pattern of the transformer blocks that get an adapter; empty is all (SDXL has 70)."""
    positions: bool = False
    """Tell the adapters' queries and keys where they stand, as DETR does (ours; in the paper only the encoder knows)."""
    fc_lr: Rate = 1e-4
    """Learning rate of the two linear layers (paper: 1e-4)."""
    gate_lr: Rate = 1e-3
    """Learning rate of the gates (ours; at the paper's 1e-6 they move by 0.3 at most in 320,000 steps)."""
    drop_text: Fraction = 0.1
    """Share of rows without text and concept token, for guidance (ours; the paper says nothing)."""
    drop_image: Fraction = 0.1
    """Share of rows without patches and concept token, for guidance (ours)."""
    beta: Fraction = 0.3
    """Weight of the adapters while sampling: less follows the prompt more (paper: 0.3; training takes 1)."""
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Factor on the concept token while sampling, so that other words are not forgotten (paper: 0.4)."""
    num_views: Positive = 1
    """Steps show 1 to so many views of an object (paper: 1; with more it learns what several references have in common)."""
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


SHAPING = ("encoder", "layer", "blocks", "positions")
"""Settings without which the same weights mean something else."""


def check(settings: InstantBooth) -> None:
    """Refuse a folder that is not there, or whose captions name nothing that the placeholder could stand before."""
    check_data(settings.data)
    if settings.start:
        trained.refuse_other(places.start(settings.start, "instantbooth"), settings, SHAPING)
    if settings.data != STICKERS and not settings.class_words:
        raise StudioError(
            "InstantBooth puts its placeholder before the word for the class, and there is none; give the words that "
            "captions use, such as --class-words dog puppy.",
            field="class_words",
        )


TINY = {
    "method.layer": -6,
    "method.positions": True,
    "method.views.background": 0.6,
    "method.views.flip": 0.0,
    "method.views.rotation": 10.0,
    "method.drop_image": 0.0,
    "method.beta": 1.0,
    "method.alpha": 1.0,
    "loop.batch_size": 32,
    "loop.log_every": 20,
    "loop.checkpoint_every": 200,
    "optim.warmup": 50,
    "preview.every": 200,
    "preview.guidance": 2.5,
}
"""What the presets for embedded models share."""

METHOD = Card(
    name="instantbooth",
    title="InstantBooth",
    summary="a subject from pictures in one sampling: a concept token and gated adapters, trained once",
    paper="Shi et al., CVPR 2024, arXiv 2304.03411",
    config=InstantBooth,
    trainer="trainers.instantbooth.trainer:InstantBoothTrainer",
    artifact="trainers.instantbooth.edit:instantbooth_edit",
    needs_references=True,
    check=check,
    offers=("text-to-image", "subject", "reference"),
    presets={
        "tiny": Preset(
            TINY
            | {
                "method.fc_lr": 2e-3,
                "method.gate_lr": 2e-2,
                "loop.steps": 2000,
                "optim.lr": 1e-3,
                "optim.schedule": "constant_with_warmup",
                "optim.ema": 0.99,
            },
            suits=Suits(small=True, process="discrete"),
            note="the embedded U-Net (ours): rates far above the paper's, as the schedule is short; with 200 steps of 32 true "
            "views took 14 % off the held-out loss of views of other objects",
        ),
        "tiny-dit": Preset(
            TINY
            | {
                "method.num_views": 3,
                "method.tiles": 2,
                "method.views.background": 0.9,
                "method.fc_lr": 1e-2,
                "method.gate_lr": 4e-1,
                "method.denoising.times": {"kind": "logit-normal-times", "mean": 1.0},
                "loop.steps": 8000,
                "optim.name": "trainers.pretrain.muon.Muon",
                "optim.lr": 1e-2,
                "optim.weight_decay": 0.0,
                "optim.schedule": "linear",
                "optim.ema": 0.998,
            },
            suits=Suits(small=True, process="flow"),
            note="the embedded transformer (ours): what instantbooth-tiny was made with at the end of three runs, 10,900 steps in "
            "all, which its card tells of; Muon, and times that prefer noise",
        ),
        "paper": Preset(
            {
                "method.encoder": "openai/clip-vit-large-patch14",
                "method.fc_lr": 1e-4,
                "loop.steps": 320_000,
                "loop.batch_size": 16,
                "optim.lr": 1e-6,
            },
            suits=Suits(small=False),
            note="paper, section 4: persons, SD 1.4; gates faster than there; other families are ours, with the same values",
        ),
    },
)

"""Settings and card of JeDi."""

from typing import Annotated, Literal

from pydantic import Field

from studio.adapters.config import Adapter, Full, Lora
from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.set_config import SetData, SetSizes, StickerSets, check_sets
from studio.diffusion.config import Denoising
from studio.errors import StudioError
from studio.records import places
from studio.settings import serial
from studio.settings.config import Count, Fraction, config
from studio.settings.custom import Custom
from studio.settings.sampling import Parts, Text

Scale = Annotated[float, Field(ge=0)]


@config
class Joint:
    """References and text guide alike: e(0,0) + w [e(r,y) - e(0,0)], two passes."""


@config
class TextOnly:
    """Text guides, references are in both passes: e(r,0) + w [e(r,y) - e(r,0)]."""


@config
class TwoScales:
    """The general form: e(0,0) + s_I [e(r,0) - e(0,0)] + s_T [e(r,y) - e(r,0)], up to three passes."""

    references: Scale = 4.0
    """Scale of the references (s_I); that of the text (s_T) is the request's guidance."""


Guide = Joint | TextOnly | TwoScales


@config
class Jedi:
    """Learn to complete sets of pictures of one subject, so that references alone tell what to draw."""

    data: SetData = StickerSets()
    """Same-subject sets: the embedded stickers, or a folder with one folder a subject."""
    model: str = "studio-tiny"
    """Base model: studio-tiny, studio-tiny-dit, a short name (sd15, sdxl, sd3, flux-dev), a folder, a .safetensors file, a hub name."""
    start: str = ""
    """JeDi weights to go on from: a run, a folder or jedi-tiny; empty starts at the base model."""
    adapter: Adapter = Full(keep_base=False)
    """How the weights may move: all of them (paper), or a LoRA of the self-attention for less memory (ours)."""
    set_sizes: SetSizes = (2, 3, 4)
    """Pictures a set; each step takes one of these sizes (ours: 2 to 4)."""
    min_references: Count = 0
    """Fewest members that are given clean; the number is uniform up to all but one (paper: random)."""
    noise_references: bool = True
    """Noise references like the other members in the channels of the noisy latent; otherwise these hold them clean."""
    loss_on: Literal["all", "targets"] = "all"
    """Members that the loss counts: all, as in latent inpainting, or only those to be drawn."""
    drop_text: Fraction = 0.1
    """Share of sets without captions, for guidance."""
    drop_references: Fraction = 0.1
    """Share of sets without references and without coupling, for guidance."""
    drop_reference_text: Fraction = 0.5
    """Share of sets whose references have no captions, as when sampling (ours)."""
    reference_caption: str = ""
    """Caption of references when sampling; empty is the neutral one."""
    guide: Guide = Joint()
    """What guidance does when sampling: joint, text-only or two-scales."""
    guidance: Scale | None = None
    """Guidance that sampling takes for the trained weights unless told otherwise; empty: the usual one."""
    parts: Parts = Parts()
    """What the model's file does not say of itself, and parts in place of its own."""
    text: Text = Text()
    """How captions become embeddings; what is drawn from the result reads prompts alike."""
    denoising: Denoising = Denoising()
    """The loss of each picture."""
    precision: Literal["fp32", "fp16"] = "fp16"
    """Precision of the exported weights."""
    held_out_sets: Annotated[int, Field(ge=1, le=16)] = 6
    """Sets that previews and validation show; of the stickers they are subjects that training never sees."""

    def __post_init__(self) -> None:
        """Refuse an adapter from outside: the folder's settings build it when sampling, which would run its code."""
        if isinstance(self.adapter, Custom):
            raise StudioError(
                f"adapter {self.adapter.path!r} is code of your own, which a JeDi folder would run for whoever samples with "
                "it; choose one of the others, such as lora.",
                field="adapter",
            )


def check(settings: Jedi) -> None:
    """Refuse what cannot work.

    Raises:
        StudioError: Names the setting.
    """
    check_sets(settings.data)
    if settings.min_references >= max(settings.set_sizes):
        raise StudioError(
            f"min_references {settings.min_references} leaves nothing to draw in sets of at most "
            f"{max(settings.set_sizes)}; choose less, or larger set_sizes.",
            field="min_references",
        )
    if settings.denoising.noise_offset:
        raise StudioError(
            "JeDi draws the noise of each member by itself and knows no noise offset; set denoising.noise_offset to 0.",
            field="denoising.noise_offset",
        )
    if settings.text.long_prompts:
        raise StudioError(
            "JeDi needs captions of one length; leave long prompts off (--text.no-long-prompts).",
            field="text.long_prompts",
        )
    if settings.start:
        _check_start(settings)


def _check_start(settings: Jedi) -> None:
    """Refuse weights that another kind of adapter was trained with."""
    given = places.start(settings.start, "jedi")
    adapter = serial.from_dict(Jedi, dict(given.settings["jedi"]), where="method.json").adapter
    both_whole = isinstance(adapter, Full) and isinstance(settings.adapter, Full)
    if adapter != settings.adapter and not both_whole:
        raise StudioError(
            f"{given.folder} was trained with the adapter {serial.spoken(adapter)}, and these settings have "
            f"{serial.spoken(settings.adapter)}; set it as it was (--adapter), or start from other weights.",
            field="adapter",
        )


TINY = {
    "method.min_references": 1,
    "method.loss_on": "targets",
    "method.drop_reference_text": 1.0,
    "method.guidance": 1.5,
    "loop.steps": 3000,
    "loop.batch_size": 10,
    "loop.log_every": 20,
    "loop.checkpoint_every": 200,
    "optim.name": "trainers.pretrain.muon.Muon",
    "optim.lr": 1e-2,
    "optim.weight_decay": 0.0,
    "optim.schedule": "linear",
    "optim.warmup": 20,
    "optim.ema": 0.998,
}
"""What the presets for embedded models share."""


METHOD = Card(
    name="jedi",
    title="JeDi",
    summary="train once on sets of one subject each; then reference pictures alone tell what to draw",
    paper="Zeng et al., CVPR 2024, arXiv 2407.06187",
    config=Jedi,
    trainer="trainers.jedi.trainer:JediTrainer",
    artifact="trainers.jedi.edit:load",
    needs_references=True,
    check=check,
    offers=("text-to-image", "references"),
    presets={
        "tiny": Preset(
            TINY,
            suits=Suits(small=True, process="discrete"),
            note="the embedded U-Net; ours",
        ),
        "tiny-dit": Preset(
            {
                **TINY,
                "method.denoising.times": {"kind": "logit-normal-times", "mean": 1.0},
                "loop.steps": 8000,
            },
            suits=Suits(small=True, process="flow"),
            note="the embedded transformer; ours: how jedi-tiny was made (its rate had fallen to 0 once at 3,300 steps)",
        ),
        "lora": Preset(
            {
                "method.adapter": {
                    "kind": "lora",
                    "rank": 64,
                    "only": ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"],
                },
                "optim.lr": 1e-4,
                "loop.batch_size": 32,
            },
            suits=Suits(small=False, chosen=("adapter",)),
            note="ours: less memory; not the paper's JeDi",
        ),
        "full": Preset(
            {"optim.lr": 1e-5, "optim.ema": 0.9999, "loop.batch_size": 32},
            suits=Suits(small=False, chosen=("whole",)),
            note="ours: the paper's values are not public",
        ),
    },
)

__all__ = ["Full", "Jedi", "Joint", "Lora", "TextOnly", "TwoScales", "check"]

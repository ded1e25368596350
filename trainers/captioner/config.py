"""Settings and card of the captioner."""

from typing import Annotated, Literal

from pydantic import Field

from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data import layouts
from studio.data.config import Images
from studio.data.sticker_config import Stickers
from studio.errors import StudioError
from studio.settings.config import config

STICKERS = "stickers"
Real = Annotated[float, Field(ge=0)]


@config
class Likelihood:
    """Maximum likelihood of the captions given (ClipCap, arXiv 2111.09734): the first stage."""


@config
class Discriminative:
    """Captions that let a retriever find their picture among the batch (DiscriTune, arXiv 2304.01662); needs no captions."""

    retriever: Annotated[str, Field(min_length=1)] = "studio-tiny-clip"
    """The frozen CLIP that gives the reward: studio-tiny-clip, an open_clip or transformers name, a folder."""
    reward_temperature: Real = 0.0
    """Factor on cosines in the reward; 0 is the retriever's own (CLIP: 100; studio-tiny-clip: 15), 1 the authors' raw cosine."""
    decode: Literal["sample", "greedy"] = "sample"
    """How captions are written in training: sample is unbiased; greedy is what a reproduction of the paper uses."""
    baseline: Literal["running-mean", "batch"] = "running-mean"
    """What a reward is compared with: the mean of all so far (paper), or this batch's, in its standard deviations."""
    kl_weight: Real = 0.0
    """Weight of the divergence from the captioner at the start, in nats a caption (paper: 0)."""
    entropy_weight: Real = 0.0
    """Weight of the entropy of the words, in nats a caption, which keeps captions varied (paper: 0)."""
    train_bridge: bool = False
    """Also move the bridge from CLIP to the language model (paper: the language model alone)."""


@config
class Captioner:
    """Train a small captioner on a frozen CLIP, or make its captions tell pictures apart."""

    model: Annotated[str, Field(min_length=1)] = "captioner-tiny"
    """captioner-tiny, a folder, a run; new:CLIP is a fresh one on that CLIP, new:CLIP+GPT2 with a GPT-2's weights."""
    data: Annotated[str, Field(min_length=1)] = STICKERS
    """A folder of pictures, with captions for maximum likelihood, or 'stickers' for new scenes in every step."""
    scenes: Stickers = Stickers()
    """What the sticker scenes show."""
    images: Images = Images()
    """How a folder's pictures become examples."""
    objective: Likelihood | Discriminative = Likelihood()
    """What is learned."""
    max_tokens: Annotated[int, Field(ge=1, le=40)] = 24
    """Longest caption written, in tokens (DiscriTune: 40; scene captions have 23 at most)."""
    candidates: Annotated[int, Field(ge=2, le=1000)] = 100
    """Pictures among which a caption must find its own when the captioner is scored (paper: 100)."""


def check(settings: Captioner) -> None:
    """Refuse what cannot work, before torch is imported.

    Raises:
        StudioError: The pictures are not there, a fresh captioner cannot write captions to reward, or latents are
            asked for.
    """
    if settings.data != STICKERS:
        layouts.find(settings.data)
    if isinstance(settings.objective, Discriminative) and settings.model.startswith("new:"):
        raise StudioError(
            f"model {settings.model!r} has not learned to write yet, so there is nothing to reward; train it with "
            "--objective likelihood first and give its run.",
            field="model",
        )
    if settings.images.cache != "none":
        raise StudioError(
            f"images.cache {settings.images.cache!r} keeps latents, which a captioner has none of; set it to none.",
            field="images.cache",
        )


METHOD = Card(
    name="captioner",
    title="Captioner",
    summary="trains a small captioner, then finetunes it so that its captions let a retriever find the picture",
    paper="Dessi et al. 2023, arXiv 2304.01662 (DiscriTune); Mokady et al. 2021, arXiv 2111.09734 (ClipCap)",
    config=Captioner,
    trainer="trainers.captioner.trainer:CaptionerTrainer",
    offers=("captions",),
    check=check,
    presets={
        "tiny": Preset(
            {"optim.lr": 2e-3, "optim.schedule": "linear", "optim.warmup": 30, "loop.batch_size": 40,
             "loop.steps": 450, "loop.checkpoint_every": 150},
            suits=Suits(small=True, fresh=True),
            note="ours, for a fresh captioner of the embedded size",
        ),
        "clipcap": Preset(
            {"optim.lr": 2e-5, "optim.schedule": "linear", "optim.warmup": 5000, "loop.batch_size": 40,
             "loop.steps": 100_000},
            suits=Suits(small=False, chosen=("likelihood",)),
            note="ClipCap's official train.py: AdamW, lr 2e-5, 5,000 steps of warm-up, batch 40",
        ),
        "discriminative": Preset(
            {"method.objective.kind": "discriminative", "optim.lr": 1e-4, "loop.batch_size": 100, "loop.steps": 150,
             "optim.weight_decay": 0.0, "loop.checkpoint_every": 50},
            suits=Suits(small=True, chosen=("discriminative",)),
            note="ours, for the embedded captioner; the paper has Adam, lr 1e-7, batch 100 for GPT-2 of 124 M weights",
        ),
        "discritune": Preset(
            {"optim.lr": 1e-7, "optim.weight_decay": 0.0, "loop.batch_size": 100},
            suits=Suits(small=False, chosen=("discriminative",)),
            note="DiscriTune, arXiv 2304.01662: Adam, lr 1e-7, batch 100, for GPT-2 of 124 M weights",
        ),
        "tiny-more": Preset(
            {"optim.lr": 5e-4, "optim.schedule": "linear", "optim.warmup": 30, "loop.batch_size": 40},
            suits=Suits(small=True, fresh=False),
            note="ours, not tried: for going on with a captioner of the embedded size, a quarter of a fresh one's rate",
        ),
    },
)  # fmt: skip

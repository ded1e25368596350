"""Settings and card of nullspace finetuning."""

from typing import Annotated, Literal

from pydantic import Field

from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.config import Labelled
from studio.settings.config import Count, Positive, config
from studio.vision.config import Tuning, Whole


@config
class VitNullspace:
    """Make a vision transformer ignore more: train it on token noise that it already nearly ignores."""

    model: str = "studio-tiny-vit"
    """studio-tiny-vit, a timm vision transformer, a folder or a run, best one finetuned on this data already."""
    data: Labelled = Labelled(train="stickers")
    """Labelled pictures."""
    tuning: Tuning = Whole()
    """Which weights move."""
    noise: Literal["learned", "random", "permuted", "none"] = "learned"
    """learned is the method; random (the start of the search) and permuted (its result, shuffled) are the controls."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the loss on the disturbed tokens (1: official code)."""
    consistency_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of ||z_v - z||^2 between disturbed and plain logits (0: the official code logs it only)."""
    limit: Annotated[float, Field(gt=0)] = 3.0
    """The search starts uniformly in [-limit, limit] (3: official code; swept over 3, 2, 1)."""
    noise_lr: Annotated[float, Field(gt=0)] = 0.1
    """Learning rate of the search (0.1: official code)."""
    eps: Annotated[float, Field(gt=0)] = 0.03
    """The search stops when the outputs change by less (0.03: best in the paper's ablation of 0.01, 0.03, 0.1)."""
    stop_metric: Literal["prob_mse", "logit_l2"] = "prob_mse"
    """What eps bounds: squared differences of probabilities (official code) or the logits' l2 distance (text)."""
    search_steps: Positive = 300
    """Most steps of a search (code: 3 rounds over a tenth of an epoch)."""
    regenerate_every: Count = 0
    """Steps after which the noise is searched anew, since the model moves; 0 is once an epoch (paper)."""


METHOD = Card(
    name="vit_nullspace",
    title="Nullspace finetuning",
    summary="robust vision transformers by training on noise that the encoder ignores",
    paper="Liu et al., CPAL 2025, arXiv 2403.10476",
    config=VitNullspace,
    trainer="trainers.vit_nullspace.trainer:VitNullspaceTrainer",
    offers=("classification", "robustness"),
    presets={
        "paper": Preset(
            {"optim.lr": 1e-5, "optim.weight_decay": 1e-4, "optim.schedule": "cosine", "loop.batch_size": 64},
            suits=Suits(networks=("vit",), small=False),
            note="official code, last script for ViT-S: AdamW, lr 1e-5, weight decay 1e-4, cosine",
        ),
        "tiny": Preset(
            {"optim.lr": 1e-4, "optim.weight_decay": 1e-4, "loop.batch_size": 64, "loop.steps": 300},
            suits=Suits(small=True),
            note="ours, for the embedded model",
        ),
    },
)

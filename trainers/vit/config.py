"""Settings and card of plain finetuning of classifiers."""

from typing import Annotated

from pydantic import Field

from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.config import Labelled
from studio.settings.config import config
from studio.vision.config import Tuning, Whole


@config
class Vit:
    """Finetune an image classifier from timm."""

    model: str = "studio-tiny-vit"
    """studio-tiny-vit, a timm name, a folder or a run; new: and a timm name starts from random weights."""
    data: Labelled = Labelled(train="stickers")
    """Labelled pictures."""
    tuning: Tuning = Whole()
    """Which weights move."""
    head_lr_scale: Annotated[float, Field(gt=0)] = 1.0
    """Learning rate of the head relative to the others (10 where the head is new: timm users' practice)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each label spread over all classes (0.1: timm's ViT recipe)."""


METHOD = Card(
    name="vit",
    title="Classifier finetuning",
    summary="finetunes an image classifier: whole, linear probe, LP-FT, adapters, AdaptFormer, SubTuning",
    paper="LP-FT arXiv 2202.10054, AdaptFormer arXiv 2205.13535, SubTuning arXiv 2302.06354, WiSE-FT arXiv 2109.01903",
    config=Vit,
    trainer="trainers.vit.trainer:VitTrainer",
    offers=("classification",),
    presets={
        "probe": Preset(
            {
                "optim.name": "sgd",
                "optim.lr": 5e-2,
                "optim.weight_decay": 0.0,
                "optim.schedule": "cosine",
                "loop.batch_size": 128,
            },
            suits=Suits(small=False, chosen=("linear-probe", "adapt-former")),
            note="AdaptFormer's official main_image.py: SGD, base rate 0.1 for 256 pictures, no weight decay, cosine",
        ),
        "lp-ft": Preset(
            {
                "optim.lr": 1e-5,
                "optim.weight_decay": 1e-4,
                "optim.schedule": "cosine",
                "loop.batch_size": 64,
                "method.head_lr_scale": 100.0,
            },
            suits=Suits(small=False, chosen=("lp-ft",)),
            note="ours: the rate of all weights, and 1e-3 for the head, at which a probe learns (LP-FT's paper tunes both)",
        ),
        "adapter": Preset(
            {
                "optim.lr": 2e-4,
                "optim.weight_decay": 1e-2,
                "optim.schedule": "cosine",
                "loop.batch_size": 32,
            },
            suits=Suits(small=False, chosen=("adapter",)),
            note="CLIP-LoRA's official run_utils.py and lora.py, for CLIP's vision transformer: AdamW, lr 2e-4, batch 32",
        ),
        "augreg": Preset(
            {"optim.lr": 1e-5, "optim.weight_decay": 1e-4, "optim.schedule": "cosine", "loop.batch_size": 64},
            suits=Suits(networks=("vit",), small=False),
            note="the nullspace paper's last script for ViT-S: AdamW, lr 1e-5, weight decay 1e-4, cosine",
        ),
        "convnet": Preset(
            {
                "optim.lr": 5e-5,
                "optim.weight_decay": 1e-8,
                "optim.schedule": "cosine",
                "loop.batch_size": 512,
                "loop.accumulate": 16,
            },
            suits=Suits(networks=("convnet",), small=False),
            note="ConvNeXt's official TRAINING.md, finetuning: AdamW, lr 5e-5, weight decay 1e-8, batch 512",
        ),
        "tiny": Preset(
            {"optim.lr": 3e-4, "optim.weight_decay": 0.05, "loop.batch_size": 64, "loop.steps": 500},
            suits=Suits(small=True),
            note="ours, for the embedded model",
        ),
    },
)

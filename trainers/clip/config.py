"""Settings and card of finetuning dual encoders."""

from typing import Any, Literal

from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.config import Labelled
from studio.errors import StudioError
from studio.matching.config import TEMPLATES, Adapted, Classes, Pairs, Tuning, Whole
from studio.matching.presets import ADAPTER, MAPLE, PROMPTSRC
from studio.settings.config import Count, config

CROSS_ENTROPY = "cross-entropy"


@config
class Clip:
    """Finetune a CLIP or SigLIP: on captions, on classes in sentences (FLYP), by a head, prompts or adapters."""

    model: str = "studio-tiny-clip"
    """studio-tiny-clip, an open_clip name, a transformers model, a folder or a run."""
    pretrained: str = ""
    """Weights of an open_clip name: a tag such as openai, or a file; empty takes the first tag."""
    data: Pairs = Labelled(train="stickers")
    """Pictures with labels or captions."""
    classes: Classes = Classes()
    """Classes of labelled pictures to train on."""
    tuning: Tuning = Whole()
    """What moves."""
    objective: Literal["auto", "softmax", "sigmoid", "cross-entropy"] = "auto"
    """softmax: CLIP's loss, with labelled data FLYP (arXiv 2212.00638); sigmoid: SigLIP's (arXiv 2303.15343);
    cross-entropy over the classes; auto: cross-entropy for prompts and heads, else what the model was pretrained with."""
    templates: tuple[str, ...] = TEMPLATES
    """Sentences about a class; contrastive losses draw one for each picture, others average them."""
    chunk: Count = 0
    """Pairs in memory at a time in contrastive losses (gradient caching, arXiv 2101.06983: the gradients of the whole
    batch for one more forward pass); 0 takes all at once."""


def is_contrastive(settings: Clip) -> bool:
    """Whether pictures are compared with the batch's texts, not with the classes' names."""
    if settings.objective == "auto":
        return isinstance(settings.tuning, (Whole, Adapted))
    return settings.objective != CROSS_ENTROPY


def check(settings: Any) -> None:
    """Refuse what cannot work.

    Raises:
        StudioError: with the setting to change.
    """
    contrastive = is_contrastive(settings)
    kind = type(settings.tuning).__name__
    if contrastive and not isinstance(settings.tuning, (Whole, Adapted)):
        raise StudioError(
            f"Tuning {kind} learns from classes, not from pairs; take --objective cross-entropy or --tuning whole.",
            field="objective",
        )
    if not contrastive and not isinstance(settings.data, Labelled):
        raise StudioError(
            f"Tuning {kind} with cross-entropy needs labelled pictures; give --data labelled, or --tuning whole with "
            "--objective softmax for captions.",
            field="data",
        )


METHOD = Card(
    name="clip",
    title="CLIP finetuning",
    summary="finetunes a CLIP or SigLIP: contrastive or FLYP, probes, CoOp, CoCoOp, MaPLe, PromptSRC, adapters",
    paper="FLYP arXiv 2212.00638, CoOp arXiv 2109.01134, CoCoOp arXiv 2203.05557, MaPLe arXiv 2210.03117, PromptSRC arXiv 2307.06948",
    config=Clip,
    trainer="trainers.clip.trainer:ClipTrainer",
    offers=("classification", "retrieval"),
    check=check,
    presets={
        "tiny": Preset(
            {
                "optim.lr": 1e-4,
                "optim.schedule": "cosine",
                "loop.batch_size": 32,
                "loop.steps": 200,
                "method.templates": ["a sticker of {a name}", "{a name}", "a picture of {a name}"],
            },
            suits=Suits(small=True),
            note="ours, for the embedded model, whose captions say sticker",
        ),
        "flyp": Preset(
            {
                "optim.lr": 1e-5,
                "optim.weight_decay": 0.1,
                "optim.schedule": "cosine",
                "optim.warmup": 500,
                "loop.batch_size": 256,
            },
            suits=Suits(small=False, chosen=("whole",)),
            note="FLYP's code: AdamW, lr 1e-5, weight decay 0.1, 500 steps of warm-up, batch 256 to 512",
        ),
        "coop": Preset(
            {
                "optim.name": "sgd",
                "optim.lr": 2e-3,
                "optim.schedule": "cosine",
                "optim.weight_decay": 5e-4,
                "loop.batch_size": 32,
                "method.tuning": {"kind": "coop"},
            },
            suits=Suits(small=False, chosen=("coop",)),
            note="CoOp's code: SGD, lr 0.002, cosine, batch 32",
        ),
        "cocoop": Preset(
            {
                "optim.name": "sgd",
                "optim.lr": 2e-3,
                "optim.schedule": "cosine",
                "optim.weight_decay": 5e-4,
                "loop.batch_size": 1,
            },
            suits=Suits(small=False, chosen=("cocoop",)),
            note="CoCoOp's config vit_b16_c4_ep10_batch1_ctxv1: SGD, lr 0.002, cosine, batch 1",
        ),
        "maple": MAPLE,
        "promptsrc": PROMPTSRC,
        "adapter": ADAPTER,
        "probe": Preset(
            {
                "optim.lr": 1e-3,
                "optim.weight_decay": 1e-2,
                "optim.schedule": "cosine",
                "loop.batch_size": 256,
            },
            suits=Suits(small=False, chosen=("probe",)),
            note="ours: a head on frozen features learns fast; untried on large data",
        ),
    },
)

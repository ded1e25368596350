"""Settings and card of OGEN."""

import dataclasses
from collections.abc import Set
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from studio.catalog import parts
from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.config import Labelled
from studio.errors import StudioError
from studio.matching.config import TEMPLATES, Classes, Cocoop, Coop, Open
from studio.matching.presets import ADAPTER, MAPLE, PROMPTSRC
from studio.settings.config import Count, Positive, config

if TYPE_CHECKING:
    from studio.catalog.run import Run

WARMS = 5
"""The generator warms up in one of so many parts of a run (official code)."""
Weight = Annotated[float, Field(ge=0)]


@config
class NewClasses:
    """The names of the classes kept as new: what the paper does, though a model may be asked about other names."""


@config
class Words:
    """Other names, among which no class of the data is: an open world."""

    words: tuple[str, ...] = ()
    """The names."""
    file: str = ""
    """A text file with one name a line, besides."""


NamePool = NewClasses | Words
"""Whose features are invented."""


@config
class Weights:
    """Weights of the losses."""

    generated: Weight = 1.0
    """Of the generator's own loss (official code: 1)."""
    real: Weight = 0.25
    """Of the inner method's loss on real pictures (official code: 0.25)."""
    known: Weight = 0.25
    """Of known classes, invented from their neighbors (official code: 0.25)."""
    near: Weight = 0.25
    """Of the neighbors, invented from a picture; shared by them (official code: 0.25)."""
    new: Weight = 0.5
    """Of new classes, invented from a picture; shared by the neighbors (official code: 0.5)."""
    distill: Weight = 1.0
    """Of the distance to the teacher's invented features (ours; the release has none)."""


@config
class Teacher:
    """The student's mean over a recent window, which grows along a cosine (adaptive local mean teacher)."""

    period: Positive = 50
    """Steps between two snapshots of the student (paper: an epoch); where it is not given, the run's steps by `horizon`."""
    shortest: Positive = 2
    """Snapshots in the window at the start (paper: 2)."""
    longest: Positive = 9
    """Snapshots in the window at the end (paper: 9)."""
    horizon: Positive = 10
    """Snapshots after which the window is longest: the epochs of the run."""

    def __post_init__(self) -> None:
        """Check rules between fields."""
        if self.shortest > self.longest:
            raise ValueError(f"shortest {self.shortest} is more than longest {self.longest}")


@config
class NoTeacher:
    """No self-distillation, as in the release."""


@config
class Ogen:
    """Finetune a CLIP on some classes so that it stays able to tell others apart (Zang et al. 2024)."""

    model: str = "studio-tiny-clip"
    """studio-tiny-clip, an open_clip name, a transformers model, a folder or a run."""
    pretrained: str = ""
    """Weights of an open_clip name: a tag such as openai, or a file; empty takes the first tag."""
    data: Labelled = Labelled(train="stickers")
    """Labelled pictures (paper: 16 shots a class)."""
    classes: Classes = Classes(part="base")
    """Classes to train on; base keeps the others as new."""
    tuning: Open = Coop()
    """The inner method: prompts, or whole towers (FLYP) or adapters, which learn from sentences about the classes."""
    templates: tuple[str, ...] = TEMPLATES
    """Sentences about a class, where no prompt is learned."""
    names: NamePool = NewClasses()
    """Classes whose features are invented."""
    invents: Literal["generator", "mean"] = "generator"
    """generator: the paper's net; mean: the mean of the nearest known classes' features instead (ablation)."""
    neighbors: Positive = 3
    """Nearest classes (official code: 3)."""
    heads: Positive = 4
    """Attention heads of the generator; divides the features' width (official code: 4)."""
    generator_lr_scale: Annotated[float, Field(gt=0)] = 1.0
    """Learning rate of the generator relative to the inner method's (official code, with prompts: 1; where towers move slowly the
    generator must not: presets take it to 1e-3)."""
    warmup: Count = 100
    """Steps in which only the generator learns; a fifth of the run where it is not given (official code)."""
    joint_softmax: bool = False
    """Let new classes compete with the known ones, too (ours; official code: among themselves only)."""
    refresh: Count = 0
    """Steps between two looks at the training pictures' statistics where the image tower moves; 0 keeps the first; the teacher's
    period where it is not given."""
    weights: Weights = Weights()
    teacher: Teacher | NoTeacher = Teacher()
    """Self-distillation."""


def follow(run: "Run", given: Set[str]) -> "Run":
    """The run with a warm-up, a window of the teacher and looks at the statistics that fit its length, where nobody gave them.

    Args:
        run: A run of OGEN.
        given: Dotted names of the settings that a person gave.
    """
    run = parts.follow(run, given)
    own: Ogen = run.method
    values: dict[str, Any] = {}
    if "method.warmup" not in given:
        values["warmup"] = run.loop.steps // WARMS
    period = own.teacher.period if isinstance(own.teacher, Teacher) else run.loop.steps // Teacher().horizon
    if isinstance(own.teacher, Teacher) and "method.teacher.period" not in given:
        period = max(1, run.loop.steps // own.teacher.horizon)
        values["teacher"] = dataclasses.replace(own.teacher, period=period)
    if "method.refresh" not in given and not isinstance(own.tuning, (Coop, Cocoop)):
        values["refresh"] = max(1, period)
    return dataclasses.replace(run, method=dataclasses.replace(own, **values))


def check(settings: Any) -> None:
    """Refuse what cannot work.

    Raises:
        StudioError: with the setting to change.
    """
    if isinstance(settings.names, NewClasses) and settings.classes.part == "all":
        raise StudioError(
            "All classes are trained on, so none is new; give --classes.part base, or other names with --names words.",
            field="names",
        )
    if isinstance(settings.names, Words) and not (settings.names.words or settings.names.file):
        raise StudioError("The pool of names is empty; give --names.words or --names.file.", field="names")
    if isinstance(settings.tuning, Coop) and settings.tuning.per_class:
        raise StudioError(
            "A context for each class knows no new names; give --tuning.per-class false.",
            field="tuning.per_class",
        )
    if settings.data.mixup or settings.data.cutmix:
        raise StudioError(
            "OGEN needs one class a picture; set data.mixup and data.cutmix to 0.", field="data.mixup"
        )


METHOD = Card(
    name="ogen",
    title="OGEN",
    summary="finetunes a CLIP without forgetting other names: invents features of unknown classes, teaches itself",
    paper="arXiv 2401.15914",
    config=Ogen,
    trainer="trainers.ogen.trainer:OgenTrainer",
    offers=("classification", "retrieval"),
    check=check,
    follow=follow,
    presets={
        "coop": Preset(
            {
                "optim.name": "sgd",
                "optim.lr": 2e-3,
                "optim.schedule": "cosine",
                "optim.weight_decay": 5e-4,
                "loop.batch_size": 32,
            },
            suits=Suits(small=False, chosen=("coop",)),
            note="official code: SGD, lr 0.002, cosine, batch 32",
        ),
        "maple": MAPLE,
        "promptsrc": PROMPTSRC,
        "adapter": dataclasses.replace(
            ADAPTER,
            values={**ADAPTER.values, "method.generator_lr_scale": 5.0},
            note=f"{ADAPTER.note}; generator 1e-3 (ours)",
        ),
        "whole": Preset(
            {
                "optim.lr": 1e-5,
                "optim.weight_decay": 0.1,
                "optim.schedule": "cosine",
                "loop.batch_size": 256,
                "method.generator_lr_scale": 100.0,
            },
            suits=Suits(small=False, chosen=("whole",)),
            note="FLYP's code, whose finetuning of all weights OGEN is put on here (ours): AdamW, lr 1e-5, weight decay 0.1; "
            "generator 1e-3",
        ),
        "tiny": Preset(
            {
                "optim.lr": 1e-3,
                "optim.schedule": "cosine",
                "loop.batch_size": 32,
                "loop.steps": 500,
                "method.templates": ["a sticker of {a name}", "{a name}", "a picture of {a name}"],
            },
            suits=Suits(small=True),
            note="ours, for the embedded model",
        ),
    },
)

"""Ways of tuning a classifier (`Tuning` is their union), and what evaluations of one measure. No torch."""

from typing import Annotated, Literal

from pydantic import Field

from studio.adapters.config import Adapter, Lora
from studio.attacks.config import Attacks
from studio.data.config import Labelled
from studio.settings.config import Count, Fraction, Positive, config
from studio.settings.run import Hardware

Scale = Annotated[float, Field(ge=0)]


@config
class Whole:
    """Every weight moves: plain finetuning."""

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on the learning rate from each block to the one below it (0.75: BEiT, MAE; 1 is one rate)."""


@config
class LinearProbe:
    """Only the head moves."""


@config
class LpFt:
    """Linear probing, then everything (Kumar et al. 2022, arXiv 2202.10054: keeps features that a new head distorts)."""

    probe_steps: Positive = 200
    """Steps in which only the head moves (ours; the paper probes to convergence)."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """As in plain finetuning."""


@config
class Adapted:
    """An adapter on attention and feed-forward layers, and the head."""

    adapter: Adapter = Lora()
    """The adapter."""


@config
class AdaptFormer:
    """Bottlenecks beside the feed-forward layers, and the head (Chen et al. 2022, arXiv 2205.13535)."""

    bottleneck: Positive = 64
    """Width of a bottleneck (64: paper)."""
    scale: Scale = 0.1
    """Factor on what the bottlenecks add (0.1: paper)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout inside the bottleneck (0.1: official code)."""


@config
class SubTuning:
    """Only some blocks and the head move (Kaplun et al. 2023, arXiv 2302.06354)."""

    blocks: tuple[Count, ...] = ()
    """Blocks that move, counted from 0 at the input; none lets `studio train vit` choose them greedily."""
    max_blocks: Positive = 2
    """Most blocks to choose (k_max)."""
    search_steps: Positive = 30
    """Steps of each short run of the choice (ours; the paper trains to convergence)."""
    search_lr: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate of the short runs (ours)."""
    min_gain: Annotated[float, Field(ge=0, le=1)] = 0.005
    """Least gain in validation accuracy for which one more block is taken (ours)."""


Tuning = Whole | LinearProbe | LpFt | Adapted | AdaptFormer | SubTuning
"""Any way of tuning."""


@config
class Robustness:
    """Measure what disturbs a classifier: corruptions, shifts, attacks; and check that the attacks can be trusted."""

    model: str = "studio-tiny-vit"
    """studio-tiny-vit, a timm name, a folder or a run."""
    data: Labelled = Labelled(train="stickers")
    """Labelled pictures; the held-out ones are measured."""
    num_images: Count = 1000
    """Held-out pictures to take, evenly over all of them; 0 takes all."""
    attacks: Attacks = Attacks()
    corruptions: Literal["all", "benchmark", "none"] = "all"
    """all: the 15 of the benchmark and the 4 for validation; benchmark: the 15."""
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = (1, 2, 3, 4, 5)
    """Severities of each corruption."""
    corruption_files: str = ""
    """Folder of ImageNet-C as published (corruption/severity/class); empty corrupts on the fly, which differs slightly."""
    shifts: tuple[str, ...] = ()
    """Further data with the same classes or a part of them (ImageNet-R, sketches), in any form that data.train takes."""
    before: str = "auto"
    """The model before finetuning, for the WiSE-FT curve of weights between the two; auto takes what a run started
    from, none draws no curve."""
    alphas: tuple[Fraction, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Points of that curve."""
    checks: bool = True
    """Look for masked gradients (restarts, black box, a radius that hides everything), on up to 64 pictures."""
    batch_size: Positive = 128
    """Pictures at a time."""
    seed: Count = 0
    """Seed of all attacks."""
    output: str = ""
    """Folder of the result; empty takes `robustness` in the run, or in the present folder."""
    hardware: Hardware = Hardware(precision="fp32")
    """Where to compute; attacks are always in fp32."""


@config
class Nullspace:
    """Show what a vision transformer cannot see: its patch embedding's nullspace, and how far training moved it."""

    model: str = "studio-tiny-vit"
    """studio-tiny-vit, a timm vision transformer, a folder or a run, whose checkpoints are then followed."""
    before: str = "auto"
    """Another model of the same shape, to compare the nullspaces with; auto takes what a run started from, none takes
    none. A run's checkpoints are compared, too: keep more of them with loop.checkpoint_every and loop.keep_checkpoints."""
    data: Labelled = Labelled(train="stickers")
    """Labelled pictures to disturb."""
    num_images: Positive = 6
    """Pictures to show."""
    noise: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """Largest change of a pixel; pictures are squeezed by as much on both sides so that nothing is clipped."""
    seed: Count = 0
    """Seed of the noise."""
    output: str = ""
    """Folder of the result; empty takes `nullspace` in the run, or in the present folder."""
    hardware: Hardware = Hardware(precision="fp32")

"""Ways of tuning a classifier. `Tuning` is the union; `tuning.py` matches it to code. No torch."""

from typing import Annotated

from pydantic import Field

from studio.adapters.config import Adapter, Lora
from studio.config import Count, Positive, config

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

"""Settings of every adapter. `Adapter` is the union; `build.py` matches it to code."""

from typing import Annotated, Literal

from pydantic import Field

from studio.config import Positive, config

Real = Annotated[float, Field(ge=0)]


@config
class Placed:
    """Where an adapter sits."""

    layers: Literal["auto", "blocks", "linear"] = "auto"
    """auto: the layers diffusers' scripts train (attention; FLUX: also feed-forward); blocks: also feed-forward
    and in/out projections of every transformer block; linear: every linear layer."""
    only: tuple[str, ...] = ()
    """Ends of layer names, such as to_q or ff.net.2, instead of a preset."""


@config
class Lora(Placed):
    """Low-rank update, W + alpha/rank B A (Hu et al. 2021, arXiv 2106.09685)."""

    rank: Positive = 16
    """Rank of the update (diffusers' scripts: 4; ours: 16)."""
    alpha: Real = 0.0
    """The update is scaled by alpha / rank; 0 takes alpha = rank (diffusers' scripts)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the input of the update."""
    init: Literal["gaussian", "kaiming", "orthogonal"] = "gaussian"
    """First value of A (gaussian: diffusers' scripts; kaiming: paper's code; orthogonal: both factors, even rank)."""
    conv: bool = False
    """Also adapt convolutions (LoCon)."""
    dora: bool = False
    """Learn the length of each output row besides its direction (DoRA, arXiv 2402.09353)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), for large ranks (rsLoRA, arXiv 2312.03732)."""
    lr_ratio: Annotated[float, Field(ge=1)] = 1.0
    """Learning rate of B relative to A (LoRA+, arXiv 2402.12354: 16)."""

    def __post_init__(self) -> None:
        """Check rules between fields."""
        if self.init == "orthogonal" and self.rank % 2:
            raise ValueError(
                f"rank {self.rank} is odd; init orthogonal needs an even rank, such as {self.rank + 1}"
            )


@config
class Full:
    """Every weight moves: plain finetuning, no adapter (Ruiz et al. 2022, arXiv 2208.12242)."""

    only: tuple[str, ...] = ()
    """Parts of parameter names that move, such as attn2; none moves all."""
    keep_base: bool = True
    """Keep the first weights in CPU memory, so that the base model can still be asked (costs one copy)."""


Adapter = Lora | Full
"""Any adapter."""

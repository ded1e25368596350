"""Settings of every adapter. `Adapter` is the union; `build.py` matches it to code."""

from typing import Annotated, Literal

from pydantic import Field

from studio.settings.config import Positive, config
from studio.settings.custom import Custom

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
    pull: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the way back to the first weights after every step (L2-SP, arXiv 1802.01483, apart from the gradient)."""

    def __post_init__(self) -> None:
        """Check rules between fields."""
        if self.pull and not self.keep_base:
            raise ValueError(f"pull {self.pull:g} needs the first weights; set keep_base")


@config
class Loha(Placed):
    """Product of two low-rank updates, element by element (FedPara, arXiv 2108.06098; LyCORIS, arXiv 2309.14859)."""

    rank: Positive = 8
    """Rank of each factor; the update can have rank squared (LyCORIS: 8)."""
    alpha: Real = 0.0
    """The update is scaled by alpha / rank; 0 takes alpha = rank."""
    conv: bool = False
    """Also adapt convolutions."""


@config
class Lokr(Placed):
    """Kronecker product of a small and a low-rank matrix (LyCORIS, arXiv 2309.14859)."""

    rank: Positive = 8
    """Rank of the larger factor."""
    alpha: Real = 0.0
    """The update is scaled by alpha / rank; 0 takes alpha = rank."""
    factor: Annotated[int, Field(ge=-1)] = -1
    """Size of the small factor; -1 makes both about equal."""
    conv: bool = False
    """Also adapt convolutions."""


@config
class Delora(Placed):
    """LoRA whose size is bounded, learned apart from its direction (arXiv 2503.18225)."""

    rank: Positive = 16
    """Rank of the update (paper: 16 for subjects)."""
    bound: Annotated[float, Field(gt=0)] = 0.5
    """First size of the update relative to the weights' columns (lambda; PEFT's 15 jumps too far at step one)."""


@config
class Hra(Placed):
    """A chain of Householder reflections in front of the weights (arXiv 2405.17484)."""

    rank: Annotated[int, Field(ge=2, multiple_of=2)] = 8
    """Number of reflections; even, so that it starts at the identity (paper: 8)."""


@config
class Shira(Placed):
    """A sparse update: 1 to 2 percent of the entries move, chosen at random (arXiv 2406.13175)."""

    rank: Positive = 16
    """Number of entries, as many as a LoRA of that rank would have."""


@config
class Miss(Placed):
    """One small block, repeated over the rows (MiSS, arXiv 2409.15371)."""

    rank: Positive = 16
    """Rank of the block."""


@config
class Hira(Placed):
    """A low-rank update multiplied with the weights, element by element (ICLR 2025)."""

    rank: Positive = 32
    """Rank of the factor (PEFT: 32)."""


@config
class Waveft(Placed):
    """Trained wavelet coefficients of the update (arXiv 2505.12532)."""

    coefficients: Positive = 2592
    """Coefficients a layer (PEFT: 2592)."""


@config
class C3a(Placed):
    """Circular convolution with trained kernels (arXiv 2407.19342)."""

    block: Positive = 16
    """Size of a block; divides inputs and outputs of every layer."""


@config
class Road(Placed):
    """Rotation and scale of pairs of outputs (RoAd, arXiv 2409.00119)."""

    group: Annotated[int, Field(ge=2, multiple_of=2)] = 32
    """Outputs that share an order of pairs; divides every layer's outputs."""


@config
class Ia3(Placed):
    """One factor for each output (IA3, arXiv 2205.05638)."""


@config
class Norms:
    """The normalization layers alone (arXiv 2312.11420)."""


@config
class Oft(Placed):
    """Rotate the input of every layer by blocks; angles and lengths of neurons stay (OFT, arXiv 2306.07280)."""

    block_size: Annotated[int, Field(ge=0)] = 32
    """Features a block; divides the input width of every layer (OFTv2: 32). 0 where blocks is set."""
    blocks: Annotated[int, Field(ge=0)] = 0
    """Number of blocks a layer instead, as the paper counts (paper: 4, which is many more parameters)."""
    share: bool = False
    """One rotation for all blocks of a layer."""
    cayley: Literal["exact", "neumann"] = "exact"
    """exact: orthogonal to rounding; neumann: OFTv2's series, which leaves the rotations at high learning rates."""
    terms: Annotated[int, Field(ge=4, le=16)] = 5
    """Terms of the Neumann series (OFTv2: 5)."""
    radius: Real = 0.0
    """COFT: largest |R - I| of a layer, over all blocks; 0 sets no bound."""
    lengths: Literal["fixed", "learned", "only"] = "fixed"
    """Fit the length of each neuron as well (re-scaled OFT); only: the rotation is frozen (the paper's second stage)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of blocks that rest in a training step."""
    conv: bool = False
    """Also adapt convolutions, whose flattened filters are rotated."""

    def __post_init__(self) -> None:
        """Check rules between fields."""
        if bool(self.block_size) == bool(self.blocks):
            raise ValueError(
                f"block_size {self.block_size} and blocks {self.blocks} say the same thing twice or not at all; "
                "set one of them and 0 for the other"
            )


@config
class Boft(Placed):
    """Rotate the input of every layer by a product of butterfly factors (BOFT, arXiv 2311.06243)."""

    block_size: Annotated[int, Field(ge=2, multiple_of=2)] = 8
    """Features a block of one factor; even (paper: 8)."""
    factors: Positive = 2
    """Butterfly factors m; block_size times 2^(m-1) divides the input width of every layer (paper: 2 to 6)."""
    lengths: Literal["fixed", "learned", "only"] = "fixed"
    """Fit the length of each neuron as well; only: the rotation is frozen."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of blocks that rest in a training step (paper: 0.1)."""
    dropout_factors: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of factors in which blocks may rest."""
    conv: bool = False
    """Also adapt convolutions, whose flattened filters are rotated."""


@config
class Diablo(Placed):
    """Blocks along the diagonal of every weight matrix (DiaBlo, 2025)."""

    blocks: Positive = 64
    """Number of blocks a layer; fewer are larger and train more (paper: 64)."""


@config
class Bitfit:
    """The biases alone (BitFit, arXiv 2106.10199)."""

    only: tuple[str, ...] = ()
    """Ends of layer names, such as to_out.0; none takes every layer that has a bias."""


Peft = Lora | Loha | Lokr | Delora | Hra | Shira | Miss | Hira | Waveft | C3a | Road | Ia3 | Norms
"""Adapters that PEFT implements."""
Orthogonal = Oft | Boft
"""Adapters that rotate."""
Adapter = Peft | Orthogonal | Diablo | Bitfit | Full | Custom
"""Any adapter. What `Custom` names gives a configuration of PEFT: a class of those (peft:LoraConfig), made with the options,
or a function (module, **options) -> PeftConfig. Layers, strength, merging and files are then PEFT's own; a run's export
is read without the person's code."""

Format = Literal["diffusers", "kohya", "comfy", "peft", "merged", "single-file"]


@config
class Export:
    """What to write when training is done."""

    formats: tuple[Format, ...] = ()
    """Formats; none writes what fits: diffusers and kohya for LoRA, peft for other adapters, merged for full
    finetuning. single-file: the whole model in one file (SD 1.x, 2.x, XL)."""
    name: str = ""
    """Name of the files, as people type it in a prompt's <lora:NAME:1>; empty takes the run's."""
    trigger: str = ""
    """Words that call what was learned, such as 'sks dog'; written into the files."""
    author: str = ""
    """Author, written into the files."""
    description: str = ""
    """One sentence, written into the files."""
    license: str = ""
    """License of the weights, written into the files; the base model's own terms go on applying."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision of the tensors in the files; of whole models fp32 leaves each part in what it has."""
    strip_metadata: bool = False
    """Leave out everything that tells how the file was made."""

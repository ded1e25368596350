"""What every run can be told: how long, how the weights move, on what hardware, what to draw meanwhile. No torch."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from studio.settings.config import Count, Fraction, Positive, config


@config
class Loop:
    """How long to train, and how often to look."""

    steps: Positive = 1000
    """Optimizer steps."""
    epochs: Count = 0
    """Passes over the data in place of steps, repeats counted as in kohya's scripts; 0 counts steps."""
    batch_size: Positive = 4
    """Examples an optimizer step sees, over all processes and accumulated parts."""
    accumulate: Positive = 1
    """Parts that a batch is split into, one after the other, to save memory; the result is the same."""
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the gradient; 0 switches clipping off (1.0: diffusers' scripts)."""
    log_every: Positive = 10
    """Steps between two logged events."""
    checkpoint_every: Count = 500
    """Steps between two checkpoints; 0 saves only at the end, at a stop and at an error."""
    keep_checkpoints: Positive = 2
    """Newest checkpoints to keep; the best one is kept besides."""
    validate_every: Count = 0
    """Steps between two losses on held-out data with fixed noise; 0 never. Needs held-out data."""


@config
class Optim:
    """How the weights move."""

    name: str = "adamw"
    """adamw, adamw8bit, lion8bit, adafactor, prodigy, schedule-free, sgd, muon, or an optimizer class by its dotted path or as `file.py:Name`."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Decoupled weight decay (1e-2: torch, diffusers)."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the running mean and variance of the gradient."""
    options: dict[str, float | int | bool | str] = field(default_factory=dict)
    """Further arguments of the optimizer, by name."""
    schedule: Literal[
        "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
    ] = "constant"
    """Learning-rate schedule, as named in diffusers."""
    warmup: Count = 0
    """Steps of linear warm-up (for every schedule but constant)."""
    full_bf16: bool = False
    """Keep the trained weights in bf16 too, rounded by chance after each step (kohya's): for whole finetuning on small GPUs."""
    fused_backward: bool = False
    """Step each weight as soon as its gradient is there, and drop the gradient (kohya's fused_backward_pass)."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the weights, which then samples and exports; 0 switches it off."""


@config
class Hardware:
    """Where and how precisely to compute."""

    device: Literal["auto", "cuda", "mps", "cpu", "simulated"] = "auto"
    """Device; auto takes the best one present. simulated computes nothing: `studio plan` counts memory on it."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Compute precision; auto is bf16 on GPUs that have it, else fp32. Trained weights stay fp32."""
    attention: Literal["auto", "sdpa", "flash", "xformers", "math"] = "auto"
    """Attention kernel; auto probes and prints what is used and why."""
    compile: bool = False
    """Compile the repeated blocks (torch.compile)."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of keeping them: less memory, about a third slower."""
    quantize: Literal["none", "nf4", "int8", "fp8"] = "none"
    """Store frozen base weights in fewer bits, also of encoders that no method trains; nf4 needs bitsandbytes."""
    offload: bool = False
    """Keep frozen parts that a step does not need on the CPU."""
    tf32: bool = True
    """Allow TF32 matrix products on NVIDIA GPUs."""
    channels_last: bool = True
    """Memory layout of convolutions (faster on GPUs and on CPUs); sharded weights keep torch's own."""
    deterministic: bool = False
    """Refuse kernels whose result can differ from run to run."""
    threads: Count = 0
    """CPU threads; 0 leaves torch's choice."""
    num_processes: Positive = 1
    """Processes on this machine; each takes its share of the batch (DDP)."""
    sharded: bool = False
    """Spread the trained models' weights, gradients and optimizer state over the processes (FSDP2): less memory a GPU."""


@config
class Preview:
    """Pictures drawn while training, always from the same seeds, also before the first step."""

    every: Count = 0
    """Steps between two previews; 0 draws none."""
    prompts: tuple[str, ...] = ()
    """Prompts; none takes what the method suggests."""
    num_images: Positive = 1
    """Pictures a prompt."""
    steps: Count = 0
    """Sampler steps; 0 takes what the model's card draws with (FLUX.1 schnell: 4), else 20."""
    guidance: Annotated[float, Field(ge=0)] | None = None
    """Guidance; empty takes what the model's card draws with, else 4."""

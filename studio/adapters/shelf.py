"""Every adapter that PEFT has and that passes our tests, as PEFT's own configuration.

Left out, each for what was measured with PEFT 0.21: VeRA, TinyLoRA, UniLoRA, VB-LoRA, FRoD, PVeRA and Lily (state
shared between layers, cannot be put on a diffusers model), FourierFT (not the identity at start), GraLoRA (inputs of
three dimensions only), AdaLoRA (needs the gradients between backward and step, and its scores in the checkpoint),
PiSSA, OLoRA and CorDA as first values of LoRA (they change the base weights).
"""

from typing import assert_never

from peft import (
    C3AConfig,
    DeloraConfig,
    HiraConfig,
    HRAConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    MissConfig,
    PeftConfig,
    RoadConfig,
    ShiraConfig,
    WaveFTConfig,
)
from torch import nn

from studio.adapters.config import (
    C3a,
    Delora,
    Hira,
    Hra,
    Ia3,
    Loha,
    Lokr,
    Lora,
    Miss,
    Norms,
    Peft,
    Road,
    Shira,
    Waveft,
)
from studio.adapters.targets import matched, norm_layers

SHIRA_SEED = 0
"""Chooses the entries that move; PEFT saves them, so any number does."""


def peft_config(adapter: Peft, module: nn.Module) -> PeftConfig:  # noqa: C901, PLR0911, PLR0912  # one case an adapter
    """The adapter as PEFT's configuration for one model.

    Raises:
        StudioError: A layer name that matches nothing, or a model without a preset.
    """
    match adapter:
        case Lora():
            return _lora(adapter, module)
        case Loha():
            where = matched(adapter, module, conv=adapter.conv)
            return LoHaConfig(r=adapter.rank, alpha=_alpha(adapter), target_modules=where)
        case Lokr():
            where = matched(adapter, module, conv=adapter.conv)
            size = adapter.factor
            return LoKrConfig(
                r=adapter.rank, alpha=_alpha(adapter), decompose_factor=size, target_modules=where
            )
        case Delora():
            where = matched(adapter, module)
            return DeloraConfig(r=adapter.rank, delora_lambda=adapter.bound, target_modules=where)  # pyright: ignore[reportArgumentType]  # typed int there, a float works
        case Hra():
            return HRAConfig(r=adapter.rank, target_modules=matched(adapter, module))
        case Shira():
            return ShiraConfig(
                r=adapter.rank, random_seed=SHIRA_SEED, target_modules=matched(adapter, module)
            )
        case Miss():
            return MissConfig(r=adapter.rank, target_modules=matched(adapter, module))
        case Hira():
            return HiraConfig(r=adapter.rank, target_modules=matched(adapter, module))
        case Waveft():
            return WaveFTConfig(n_frequency=adapter.coefficients, target_modules=matched(adapter, module))
        case C3a():
            return C3AConfig(
                block_size=adapter.block, init_weights=True, target_modules=matched(adapter, module)
            )
        case Road():
            return RoadConfig(group_size=adapter.group, target_modules=matched(adapter, module))
        case Ia3():
            return IA3Config(target_modules=matched(adapter, module), feedforward_modules=[])
        case Norms():
            return LNTuningConfig(target_modules=norm_layers(module))
        case _:
            assert_never(adapter)


def _lora(adapter: Lora, module: nn.Module) -> LoraConfig:
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=_alpha(adapter),
        lora_dropout=adapter.dropout,
        init_lora_weights=True if adapter.init == "kaiming" else adapter.init,
        use_dora=adapter.dora,
        use_rslora=adapter.rslora,
        target_modules=matched(adapter, module, conv=adapter.conv),
    )


def _alpha(adapter: Lora | Loha | Lokr) -> int:
    """Alpha, which PEFT types as int; a whole number stays one, so that its file says 16, not 16.0."""
    alpha = adapter.alpha or float(adapter.rank)
    return int(alpha) if alpha == int(alpha) else alpha  # pyright: ignore[reportReturnType]  # PEFT divides only

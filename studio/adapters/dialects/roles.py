"""Ends of keys: which part of a layer's update a tensor is, in every dialect; and updates made of such parts."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from studio.adapters.updates import Additive, Difference, Hadamard, Kronecker, LowRank, Update
from studio.errors import StudioError

_NAME = r"(?:\.(?!weight|bias)\w+)?"
"""An adapter's name, which PEFT writes into the keys of a model that was saved whole."""
_ENDS: tuple[tuple[str, str], ...] = (
    (rf"\.(?:lora_down|lora_A{_NAME}|lora\.down|lora_linear_layer\.down)\.weight", "down"),
    (rf"\.(?:lora_up|lora_B{_NAME}|lora\.up|lora_linear_layer\.up)\.weight", "up"),
    (r"(?<=_lora)\.down\.weight|(?<=_lora[12])\.down\.weight", "down"),
    (r"(?<=_lora)\.up\.weight|(?<=_lora[12])\.up\.weight", "up"),
    (rf"\.(?:lora_up|lora_B){_NAME}\.bias", "up_bias"),
    (r"\.lora_mid\.weight", "mid"),
    (r"\.dora_scale", "magnitude"),
    (rf"\.lora_magnitude_vector{_NAME}(?:\.weight)?", "magnitude"),
    (r"\.(hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))" + _NAME, ""),
    (r"\.(?:diff|w_norm)", "diff"),
    (r"\.(?:diff_b|b_norm)", "diff_b"),
    (r"\.alpha", "alpha"),
)
ENDS = tuple((re.compile(f"(.+?)(?:{end})$"), role) for end, role in _ENDS)
"""Patterns of keys: the start and the role; the empty role is the pattern's second group."""
UNREAD = {
    "oft_": "an OFT of LyCORIS or OneTrainer",
    "a1.weight": "a GLoRA of LyCORIS",
    "reshape_weight": "a FLUX control LoRA",
    "on_input": "an IA3 of LyCORIS",
    "ia3_": "an IA3",
    "vera_lambda": "a VeRA",
    "set_weight": "weights that replace the model's",
}
"""Parts of keys of what is known and not read."""
_HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


def role_of(key: str) -> tuple[str, str] | None:
    """The start of a key and the role of its end; None if it has none that is known."""
    for pattern, role in ENDS:
        if found := pattern.match(key):
            return found.group(1), role or found.group(2)
    return None


def made_of(parts: Mapping[str, Tensor], layer: str, alpha: float | None) -> Update:
    """The update that a layer's tensors are.

    Args:
        parts: Tensors by role.
        layer: What they belong to, for messages.
        alpha: Alpha as the file's metadata has it, where no tensor says it; None is the rank.

    Raises:
        StudioError: One of them is missing or there are tensors of two kinds.
    """
    rest = dict(parts)
    magnitude, bias, scaled = rest.pop("magnitude", None), rest.pop("diff_b", None), rest.pop("up_bias", None)
    told = rest.pop("alpha", None)
    own = alpha if told is None else float(told.float())
    additive = _additive(rest, layer, own)
    if rest:
        raise StudioError(
            f"{layer} has {', '.join(sorted(rest))} beside what makes one adapter; the file is damaged."
        )
    if scaled is not None and isinstance(additive, LowRank):
        bias = scaled * additive.scale
    if magnitude is not None:
        rows = magnitude.ndim == 1 or magnitude.shape[0] == magnitude.numel()
        magnitude = magnitude.flatten() if rows else magnitude
    return Update(additive, magnitude, bias=bias)


def _additive(rest: dict[str, Tensor], layer: str, alpha: float | None) -> Additive | None:
    """Takes the parts that it is made of."""
    if "down" in rest or "up" in rest:
        down, up = _taken(rest, layer, ("down", "up"))
        return LowRank(down, up, float(len(down)) if alpha is None else alpha, rest.pop("mid", None))
    if any(key.startswith("hada_w") for key in rest):
        a, b, c, d = _taken(rest, layer, _HADA)
        kernels = (
            _taken(rest, layer, ("hada_t1", "hada_t2")) if "hada_t1" in rest or "hada_t2" in rest else None
        )
        return Hadamard(
            (a, b),
            (c, d),
            float(len(b)) if alpha is None else alpha,
            (kernels[0], kernels[1]) if kernels else None,
        )
    if any(key.startswith("lokr_") for key in rest):
        first, second = (_factor(rest, layer, key) for key in ("lokr_w1", "lokr_w2"))
        kernel = (rest.pop("lokr_t2"),) if "lokr_t2" in rest else ()
        return Kronecker(first, second + kernel, alpha)
    return Difference(rest.pop("diff")) if "diff" in rest else None


def _factor(rest: dict[str, Tensor], layer: str, key: str) -> tuple[Tensor, ...]:
    return (rest.pop(key),) if key in rest else tuple(_taken(rest, layer, (f"{key}_a", f"{key}_b")))


def _taken(rest: dict[str, Tensor], layer: str, keys: tuple[str, ...]) -> list[Tensor]:
    names = {"down": "lora_A (or lora_down)", "up": "lora_B (or lora_up)"}
    if missing := [names.get(key, key) for key in keys if key not in rest]:
        raise StudioError(
            f"{layer} has no {' and no '.join(missing)}; the file is cut, copy or download it again."
        )
    return [rest.pop(key) for key in keys]


def finite(values: Mapping[str, Tensor]) -> str:
    """The first key with a number that is none; empty if all are finite."""
    return next(
        (
            key
            for key, value in values.items()
            if value.is_floating_point() and not torch.isfinite(value).all()
        ),
        "",
    )

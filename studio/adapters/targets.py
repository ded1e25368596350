"""Which layers of which model an adapter is put on: presets by model class, or ends of names."""

from dataclasses import dataclass

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from studio.adapters.config import Placed
from studio.catalog import families
from studio.errors import StudioError, unknown

CLIP = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True)
class Preset:
    """Ends of layer names: what is trained by default, and what `blocks` adds."""

    auto: tuple[str, ...]
    more: tuple[str, ...]


_TIMM = Preset(("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"), ())
PRESETS = {
    "CLIPTextModel": Preset(CLIP, ("fc1", "fc2")),
    "CLIPTextModelWithProjection": Preset(CLIP, ("fc1", "fc2")),
    "CLIPModel": Preset(CLIP, ("fc1", "fc2")),
    "SiglipModel": Preset(CLIP, ("fc1", "fc2")),
    "T5EncoderModel": Preset(("q", "k", "v", "o"), ("wi_0", "wi_1", "wo")),
    **dict.fromkeys(("VisionTransformer", "SwinTransformer", "SwinTransformerV2", "Beit"), _TIMM),
    "Eva": Preset(  # also DINOv3's
        (*_TIMM.auto, "attn.q_proj", "attn.k_proj", "attn.v_proj", "mlp.fc1_g", "mlp.fc1_x"), ()
    ),
    "ConvNeXt": Preset(("mlp.fc1", "mlp.fc2"), ()),
    # open_clip; its fused attention is made of linear layers before (studio.models.split_attention)
    "CLIP": Preset((*CLIP, "mlp.c_fc", "mlp.c_proj"), ()),
    "CustomTextCLIP": Preset(  # its image tower may be timm's
        (*CLIP, "mlp.c_fc", "mlp.c_proj", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"), ()
    ),
}
"""By class name, looked up along the class's ancestors: timm and open_clip need not be imported. Denoisers have theirs on
the card of their family."""

KINDS = (nn.Linear,)
"""torch's MultiheadAttention, which open_clip uses, is left out: PEFT's LoRA for it adds to and subtracts from the
base weights in every forward pass, so that they drift."""

_CLOSED = (BaseTunerLayer, nn.MultiheadAttention)
"""What is inside these is not a layer of its own: an adapter's factors, a projection that is never called."""


def matched(
    placed: Placed, module: nn.Module, *, conv: bool = False, kinds: tuple[type, ...] = KINDS
) -> list[str]:
    """Ends of layer names (as PEFT's `target_modules`) that select what `placed` asks for in `module`.

    Args:
        placed: The adapter's settings.
        module: The model.
        conv: Also take convolutions; a 1x1 convolution counts as linear only then.
        kinds: Layer classes that the adapter can sit on.

    Raises:
        StudioError: A name that matches no layer, or a model without a preset.
    """
    kinds = (*kinds, nn.Conv2d) if conv else kinds
    closed = tuple(f"{name}." for name, layer in module.named_modules() if isinstance(layer, _CLOSED))
    open_ = {name: layer for name, layer in module.named_modules() if not name.startswith(closed)}
    layers = {name: layer for name, layer in open_.items() if isinstance(root(layer), kinds)}
    ends = list(placed.only) or _preset(placed, module, layers)
    whole = set(placed.only)  # names that may also stand for a layer outside every block
    if not placed.only and placed.layers == "linear":
        whole |= set(ends)
    if not placed.only and conv:
        convs = [name for name, layer in layers.items() if isinstance(root(layer), nn.Conv2d)]
        ends, whole = [*ends, *convs], whole | set(convs)
    found = [end for end in dict.fromkeys(ends) if any(_ends(name, end) for name in layers)]
    for end in placed.only:
        if end not in found:
            raise unknown("layer", end, {name.rsplit(".", 1)[-1] for name in layers}, field="adapter.only")
    if not found:
        raise StudioError(
            f"No layer of {type(module).__name__} fits this adapter; name some with adapter.only."
        )
    wanted = [name for name in layers if _any_end(name, found) and ("." in name or name in whole)]
    hit = [name for name in open_ if _any_end(name, found)]
    # Full names where an end would also select something the adapter cannot sit on, or the model's last layer.
    return found if len(hit) == len(wanted) else wanted


def norm_layers(module: nn.Module) -> list[str]:
    """Names of the normalization layers that have weights.

    Raises:
        StudioError: There are none.
    """
    norms = {name: layer for name, layer in module.named_modules() if "Norm" in type(root(layer)).__name__}
    found = [
        name for name, layer in norms.items() if "weight" in dict(root(layer).named_parameters(recurse=False))
    ]
    if not found:
        raise StudioError(
            f"{type(module).__name__} has no normalization layer with weights; use another adapter."
        )
    return found


def root(layer: nn.Module) -> nn.Module:
    """The layer under any adapters."""
    return layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer


def _preset(placed: Placed, module: nn.Module, layers: dict[str, nn.Module]) -> list[str]:
    if placed.layers == "linear":
        return [name for name, layer in layers.items() if isinstance(root(layer), nn.Linear)]
    for cls in type(module).__mro__:
        if preset := families.layers_of(cls.__name__) or PRESETS.get(cls.__name__):
            return [*preset.auto, *(preset.more if placed.layers == "blocks" else ())]
    raise StudioError(
        f"{type(module).__name__} has no preset of layers for an adapter; "
        "set adapter.layers to linear or name layers with adapter.only."
    )


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _any_end(name: str, ends: list[str]) -> bool:
    return any(_ends(name, end) for end in ends)

"""The update that an adapter on a layer is: what PEFT's LoRA, DoRA, LoHa and LoKr, and ours, do to its weight."""

from peft.tuners.adalora.layer import AdaLoraLayer
from peft.tuners.loha.layer import LoHaLayer
from peft.tuners.lokr.layer import LoKrLayer
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from studio.adapters.patched import Patched
from studio.adapters.updates import Hadamard, Kronecker, LowRank, Update


def update_on(layer: BaseTunerLayer, name: str) -> Update | None:
    """The update of one adapter on a layer, in CPU memory; None if it has none, or one of another kind."""
    if isinstance(layer, Patched):
        return layer.patch[name].update() if name == layer.name else None
    if isinstance(layer, LoraLayer) and not isinstance(layer, AdaLoraLayer):
        return _lora(layer, name) if name in layer.lora_A else None
    if isinstance(layer, LoHaLayer):
        return _loha(layer, name) if name in layer.hada_w1_a else None
    if isinstance(layer, LoKrLayer):
        return _lokr(layer, name) if name in layer.lokr_w1 or name in layer.lokr_w1_a else None
    return None


def _lora(layer: LoraLayer, name: str) -> Update:
    down, up = _kept(layer.lora_A[name].weight), _kept(layer.lora_B[name].weight)
    rank = int(layer.r[name])
    magnitudes = layer.lora_magnitude_vector
    magnitude = _kept(magnitudes[name].weight).flatten() if name in magnitudes else None
    scale = layer.lora_alpha[name] / (rank**0.5 if layer.use_rslora[name] else rank)
    return Update(LowRank(down, up, float(scale * rank)), magnitude)


def _loha(layer: LoHaLayer, name: str) -> Update:
    first = _kept(layer.hada_w1_a[name]), _kept(layer.hada_w1_b[name])
    second = _kept(layer.hada_w2_a[name]), _kept(layer.hada_w2_b[name])
    kernels = (_kept(layer.hada_t1[name]), _kept(layer.hada_t2[name])) if name in layer.hada_t1 else None
    return Update(Hadamard(first, second, float(layer.alpha[name]), kernels))


def _lokr(layer: LoKrLayer, name: str) -> Update:
    """PEFT scales whole factors too, and others do not: then the scale is in the first one."""
    one = (_kept(layer.lokr_w1[name]),) if name in layer.lokr_w1 else _pair(layer, "lokr_w1", name)
    two = (_kept(layer.lokr_w2[name]),) if name in layer.lokr_w2 else _pair(layer, "lokr_w2", name)
    if name in layer.lokr_t2:
        two = (*two, _kept(layer.lokr_t2[name]))
    scale = float(layer.scaling[name])
    found = Kronecker(one, two)
    if not found.rank:
        return Update(Kronecker((one[0] * scale,), two))
    return Update(Kronecker(one, two, scale * found.rank))


def _pair(layer: LoKrLayer, key: str, name: str) -> tuple[Tensor, ...]:
    return tuple(_kept(getattr(layer, f"{key}_{end}")[name]) for end in "ab")


def _kept(value: Tensor) -> Tensor:
    return value.detach().cpu()

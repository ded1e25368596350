"""The one attention hook: every attention layer of a denoiser through a function of yours.

The layer's own processor keeps running (so LoRA layers, norms and rotary embeddings stay in place); only its
call of `scaled_dot_product_attention` is handed to the function. An identity function therefore gives
bit-equal output, for U-Nets and for the joint attention of SD3 and FLUX alike.

Axes: `b` batch (under guidance: unconditional rows first), `h` heads, `n` query tokens, `m` key tokens, `d` width.
"""

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch.nn.functional as F
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, XFormersAttnProcessor
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from typing_extensions import override


@dataclass(frozen=True)
class Ordinary:
    """The layer's own attention. Call it; or ask it about the call.

    Attributes:
        mask: Mask of this call, or None.
        text: Where text tokens lie in a joint sequence; an empty slice elsewhere.
    """

    mask: Tensor | None
    text: slice

    def __call__(
        self,
        query: Float[Tensor, "b h n d"],
        key: Float[Tensor, "b h m d"],
        value: Float[Tensor, "b h m e"],
        *,
        mask: Bool[Tensor, "#b #h n m"] | Float[Tensor, "#b #h n m"] | None = None,
        scale: float | None = None,
    ) -> Float[Tensor, "b h n e"]:
        """softmax(scale q k^T + mask) v; scale is 1 / sqrt(d) if not given, mask the call's own."""
        grouped = query.shape[1] != key.shape[1]
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=self.mask if mask is None else mask, scale=scale, enable_gqa=grouped
        )


@runtime_checkable
class Function(Protocol):
    """What takes the place of attention."""

    def __call__(  # noqa: PLR0913  # what an attention layer knows
        self,
        query: Float[Tensor, "b h n d"],
        key: Float[Tensor, "b h m d"],
        value: Float[Tensor, "b h m e"],
        *,
        layer: str,
        cross: bool,
        scale: float,
        ordinary: Ordinary,
    ) -> Float[Tensor, "b h n e"]:
        """The attention's output.

        Args:
            query: Queries, heads split.
            key: Keys.
            value: Values.
            layer: Name such as `down_blocks.0.attentions.0.transformer_blocks.0.attn1`.
            cross: Keys and values come from the text alone (joint attention is not cross).
            scale: The layer's scale of the logits.
            ordinary: The layer's own attention.
        """
        ...


Choose = Callable[[str], Function | None]


@dataclass(frozen=True)
class Layout:
    """Where text stands in the joint attention of a denoiser.

    Attributes:
        text: At the start or the end of a joint sequence; none if text has layers of its own.
        text_only: Parts of the names of layers that see text alone; they are left as they are.
        image_only: Parts of the names of layers that see the picture alone.
        length: Tokens of text in a call of the denoiser, given its arguments by name.
    """

    text: Literal["none", "first", "last"]
    text_only: tuple[str, ...]
    image_only: tuple[str, ...]
    length: Callable[[Mapping[str, Any]], int]

    def joint(self, layer: str) -> bool:
        """Whether text and picture stand in one sequence there."""
        return self.text != "none" and not _any_part(layer, self.image_only)

    def where(self, layer: str, total: int, length: int) -> slice:
        """Where text lies in a layer's sequence of `total` tokens; an empty slice where it does not."""
        if not self.joint(layer):
            return slice(0, 0)
        return slice(0, length) if self.text == "first" else slice(total - length, total)


@contextlib.contextmanager
def attending(denoiser: nn.Module, choose: Choose, layout: Layout) -> Iterator[None]:
    """Run attention layers through what `choose(layer name)` gives while the context is open.

    Contexts nest: the one opened first is called first, and its `ordinary` reaches the next.
    With gradient checkpointing through `checkpointed`, the backward pass sees the same functions.
    """
    length = [0]
    hooked: list[tuple[nn.Module, Any]] = []
    for name, module in denoiser.named_modules():
        if not _attends(module) or _any_part(name, layout.text_only):
            continue
        if (function := choose(name)) is not None:
            hooked.append((module, _hooked(module, function, name, length, layout)))
    watch = denoiser.register_forward_pre_hook(_remember_length(denoiser, length, layout), with_kwargs=True)
    try:
        with _installed(hooked):
            yield
    finally:
        watch.remove()


def _any_part(layer: str, parts: tuple[str, ...]) -> bool:
    return any(part in f".{layer}." for part in parts)


def _attends(module: nn.Module) -> bool:
    return isinstance(module, Attention | AttentionModuleMixin)


def checkpointed(block: nn.Module, *inputs: Any) -> Any:
    """Run a block without keeping activations; recomputing them uses the hooks of the forward pass."""
    hooked = [
        (module, module.processor)
        for module in block.modules()
        if _attends(module) and isinstance(module.processor, _Hooked)
    ]

    def run(*again: Any) -> Any:
        with _installed(hooked):
            return block(*again)

    return checkpoint(run, *inputs, use_reentrant=False)


@contextlib.contextmanager
def _installed(processors: list[tuple[nn.Module, Any]]) -> Iterator[None]:
    before = [(module, module.processor) for module, _ in processors]
    try:
        for module, processor in processors:
            module.set_processor(processor)
        yield
    finally:
        for module, processor in before:
            module.set_processor(processor)


class _Hooked:
    """A processor that runs another one and hands its attention call to a function."""

    def __init__(
        self, processor: Any, function: Function, layer: str, length: list[int], layout: Layout
    ) -> None:
        self.processor = _interceptable(processor)
        self.function, self.layer, self.length, self.layout = function, layer, length, layout

    def __call__(self, attn: nn.Module, *args: Any, **kw: Any) -> Any:
        given = args[1] if len(args) > 1 else kw.get("encoder_hidden_states")
        cross = given is not None and not self.layout.joint(self.layer)

        def replaced(
            query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
        ) -> Tensor:
            return self.function(
                query,
                key,
                value,
                layer=self.layer,
                cross=cross,
                scale=query.shape[-1] ** -0.5 if scale is None else scale,
                ordinary=Ordinary(mask, self.layout.where(self.layer, key.shape[2], self.length[0])),
            )

        with _Intercept(replaced):
            return self.processor(attn, *args, **kw)


def _hooked(module: nn.Module, function: Function, layer: str, length: list[int], layout: Layout) -> _Hooked:
    """A hook that takes what the layer's own processor takes: layers pass on only what its signature names."""

    @functools.wraps(type(module.processor).__call__)
    def call(hook: _Hooked, *args: Any, **kw: Any) -> Any:
        return _Hooked.__call__(hook, *args, **kw)

    same = type("_Hooked", (_Hooked,), {"__call__": call})
    return same(module.processor, function, layer, length, layout)


class _Intercept(TorchFunctionMode):
    """Hands calls of `scaled_dot_product_attention` to a function; all else passes."""

    def __init__(self, replaced: Callable[..., Tensor]) -> None:
        super().__init__()
        self.replaced = replaced

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        call = _SIGNATURE.bind(*args, **kwargs).arguments
        return self.replaced(
            call["query"], call["key"], call["value"], call.get("attn_mask"), call.get("scale")
        )


def _call(  # noqa: PLR0913  # torch's
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> None:
    """The signature of torch's attention, which is built in and cannot be inspected."""


_SIGNATURE = inspect.signature(_call)


def _interceptable(processor: Any) -> Any:
    """The processor, made to call torch's attention where another kernel was chosen for it."""
    if isinstance(processor, _Hooked | AttnProcessor2_0):
        return processor
    if isinstance(processor, XFormersAttnProcessor):
        return AttnProcessor2_0()
    inner = copy.copy(processor)
    inner._attention_backend = AttentionBackendName.NATIVE  # diffusers' only switch for one layer
    return inner


def _remember_length(denoiser: nn.Module, length: list[int], layout: Layout) -> Callable[..., None]:
    """A hook that notes the text length of a joint transformer's call."""
    signature = inspect.signature(type(denoiser).forward)

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if layout.text != "none":
            length[0] = layout.length(signature.bind(module, *args, **kwargs).arguments)

    return hook

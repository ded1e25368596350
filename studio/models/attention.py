"""The one attention hook: every attention layer of a denoiser through a function of yours.

The layer's own processor keeps running (so LoRA layers, norms and rotary embeddings stay in place); only its
call of `scaled_dot_product_attention` is handed to the function. An identity function therefore gives
bit-equal output, for U-Nets and for the joint attention of SD3 and FLUX alike.

Axes: `b` batch (under guidance: unconditional rows first), `h` heads, `n` query tokens, `m` key tokens, `d` width.
"""

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

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
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=self.mask if mask is None else mask, scale=scale
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


@contextlib.contextmanager
def attending(denoiser: nn.Module, choose: Choose, *, text_first: bool) -> Iterator[None]:
    """Run attention layers through what `choose(layer name)` gives while the context is open.

    Contexts nest: the one opened first is called first, and its `ordinary` reaches the next.
    With gradient checkpointing through `checkpointed`, the backward pass sees the same functions.
    """
    length = [0]
    hooked: list[tuple[nn.Module, Any]] = []
    for name, module in denoiser.named_modules():
        if isinstance(module, Attention | AttentionModuleMixin) and (function := choose(name)) is not None:
            hooked.append((module, _Hooked(module.processor, function, name, length, text_first)))
    watch = denoiser.register_forward_pre_hook(_remember_length(length), with_kwargs=True)
    try:
        with _installed(hooked):
            yield
    finally:
        watch.remove()


def checkpointed(block: nn.Module, *inputs: Any) -> Any:
    """Run a block without keeping activations; recomputing them uses the hooks of the forward pass."""
    hooked = [
        (module, module.processor)
        for module in block.modules()
        if isinstance(module, Attention | AttentionModuleMixin) and isinstance(module.processor, _Hooked)
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
        self, processor: Any, function: Function, layer: str, length: list[int], text_first: bool
    ) -> None:
        self.processor = _interceptable(processor)
        self.function, self.layer, self.length, self.text_first = function, layer, length, text_first

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *args: Any,
        **kw: Any,
    ) -> Any:
        joint = attn.added_kv_proj_dim is not None or self._single_stream(attn)
        cross = encoder_hidden_states is not None and not joint

        def replaced(
            query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
        ) -> Tensor:
            text = self._text(key.shape[2]) if joint else slice(0, 0)
            return self.function(
                query,
                key,
                value,
                layer=self.layer,
                cross=cross,
                scale=query.shape[-1] ** -0.5 if scale is None else scale,
                ordinary=Ordinary(mask, text),
            )

        with _Intercept(replaced):
            return self.processor(attn, hidden_states, encoder_hidden_states, *args, **kw)

    def _single_stream(self, attn: nn.Module) -> bool:
        return self.text_first and attn.added_kv_proj_dim is None

    def _text(self, total: int) -> slice:
        return slice(0, self.length[0]) if self.text_first else slice(total - self.length[0], total)


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


def _remember_length(length: list[int]) -> Callable[..., None]:
    """A hook that notes the text length of a joint transformer's call."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module, args
        length[0] = kwargs["encoder_hidden_states"].shape[1]

    return hook

"""Qwen-Image-2.1: one block-causal stream over rows of Qwen3-VL and, after them, the picture.

It draws by words here; diffusers' pipeline also takes pictures, and keeps keys and values of the words between steps, which
changes no picture. Axes: `b` batch, `c h w` latent, `l` rows of text, `n` tokens of text and picture.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21AttnProcessor
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from studio.backend.core import Backend
from studio.contracts.condition import Condition
from studio.diffusion.process import NUM_TIMESTEPS
from studio.errors import StudioError
from studio.models.attention import Choose
from studio.models.base import Family
from studio.models.families.qwen_image.model import AFTER
from studio.models.language import Reading, encode_chat, told_of_weights
from studio.settings.sampling import Text

SYSTEM = "<|im_start|>system\nComprehend and analyze the provided prompt.<|im_end|>\n"
"""Start of the template, whose rows the denoiser does not see."""
USER = "<|im_start|>user\n"
SLOT = 2
"""Sides of the squares of picture tokens that its mask counts."""


class WholeAttention(QwenImage21AttnProcessor):
    """The block-causal attention of a layer in one call with a mask, where the library's makes one a block."""

    @override
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]  # a layer names all that follows
        self, attn: Any, hidden_states: Tensor, **call: Any
    ) -> Tensor:
        segments, valid = call.pop("segments", None), call.pop("key_valid", None)
        if segments is not None:
            mask = _block_causal(segments, hidden_states.shape[1], hidden_states.device)
            call["attention_mask"] = mask if valid is None else mask & rearrange(valid, "b n -> b 1 1 n")
        return super().__call__(attn, hidden_states, **call)


def _block_causal(
    segments: list[tuple[int, int, bool]], tokens: int, device: torch.device
) -> Bool[Tensor, "1 1 n n"]:
    """Which tokens (last axis) each sees: those before it, and of a picture all."""
    mask = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()
    last = segments[-1][1] if segments else 0
    for start, end in [(start, end) for start, end, words in segments if not words] + [(last, tokens)]:
        mask[start:end, start:end] = True
    return rearrange(mask, "n m -> 1 1 n m")


class QwenImage21(Family):
    """Qwen-Image-2.1."""

    def __init__(self, parts: DiffusionPipeline, backend: Backend, text: Text = Text()) -> None:
        super().__init__(parts, backend, text)
        self.tokenizers = {"tokenizer": self._components["processor"].tokenizer}
        self.size_multiple = SLOT * self.vae_scale
        self._watchers = 0
        blocks: Any = self.denoiser.get_submodule("transformer_blocks")
        for block in blocks:
            block.attn.set_processor(WholeAttention())

    @property
    @override
    def spare_axis(self) -> int:
        return int(self.denoiser_config.axes_dims_rope[0])

    @override
    def embed(self, prompts: Sequence[str]) -> Condition:
        told_of_weights(self.card.title, prompts, self.text)
        encoder, tokenizer = self.text_encoders["text_encoder"], self.tokenizers["tokenizer"]
        dropped = len(tokenizer(SYSTEM).input_ids)
        reading = Reading(
            render=lambda prompt: f"{SYSTEM}{USER}{prompt or ' '}{AFTER}",
            layers=(-1,),
            length=dropped + self.card.words.length,
            padding="longest",
            dropped=dropped,
        )
        with self.present(encoder), self.backend.autocast(), _without_last_norm(encoder):
            found, there = encode_chat(encoder, tokenizer, prompts, reading)
        return Condition(found.tokens, None, {"kinds": found.kinds, "mask": there})

    @override
    def attending_where(self, choose: Choose) -> contextlib.AbstractContextManager[None]:
        return self._watched(super().attending_where(choose))

    @contextlib.contextmanager
    def _watched(self, context: contextlib.AbstractContextManager[None]) -> Iterator[None]:
        self._watchers += 1
        try:
            with context:
                yield
        finally:
            self._watchers -= 1

    @override
    def _predict(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        """Prompts of one length at a time: the picture stands behind the last row, so padding would move it away."""
        lengths = cond.extra["mask"].sum(1)
        different = lengths.unique().tolist()
        if len(different) > 1 and self._watchers:
            raise StudioError(
                f"{self.card.title} reads prompts of different length apart, so that attention cannot be changed over "
                "all of them; make them equally long, or draw one at a time at guidance 1."
            )
        found = torch.zeros_like(x_t)
        for length in different:
            rows = (lengths == length).nonzero()[:, 0]
            found[rows] = self._alike(x_t[rows], timestep[rows], cond.tokens[rows, :length]).to(found)
        return found

    def _alike(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], rows: Float[Tensor, "b l d"]
    ) -> Float[Tensor, "b c h w"]:
        """The prediction for prompts of one length."""
        height, width = x_t.shape[-2:]
        words = torch.zeros(rows.shape[:2], dtype=torch.bool, device=rows.device)
        packed = self.denoiser(
            hidden_states=rearrange(x_t, "b c h w -> b (h w) c"),
            encoder_hidden_states=rows,
            timestep=timestep / NUM_TIMESTEPS,
            img_shapes=[[(1, height, width)]] * len(x_t),
            img_mask=F.pad(words, (0, height * width // SLOT**2), value=True),
        ).sample
        return rearrange(packed[:, -height * width :], "b (h w) c -> b c h w", h=height)


@contextlib.contextmanager
def _without_last_norm(encoder: nn.Module) -> Iterator[None]:
    """The last hidden state as the last layer leaves it, which the denoiser was trained on."""
    norm = encoder.get_submodule("model.language_model.norm")
    handle = norm.register_forward_hook(lambda _module, given, _output: given[0])
    try:
        yield
    finally:
        handle.remove()

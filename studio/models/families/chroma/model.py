"""Chroma: FLUX.1's blocks without CLIP and without a guidance input; the transformer attends to one token of padding.

The mask is boolean, as the model was trained and as its own code, ai-toolkit and OneTrainer have it. diffusers' pipeline
hands the same mask over as numbers, which attention adds to its logits: it hides nothing there (diffusers issue 12116), and
its single blocks lose the mask under gradient checkpointing. Here neither happens.

Axes: `b` batch, `l` text tokens, `n` picture tokens, `c h w` latent.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.transformers.transformer_chroma import ChromaSingleTransformerBlock
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.diffusion.process import NUM_TIMESTEPS
from studio.models.families.flux.model import Flux
from studio.models.packing import unpack
from studio.models.text import PAD, encode_t5


class Chroma(Flux):
    """Chroma: T5's rows with a mask, two passes under guidance."""

    _mask: Bool[Tensor, "b l_n"]

    @override
    def embed(self, prompts: Sequence[str]) -> Condition:
        encoder, tokenizer = self.text_encoders["text_encoder"], self.tokenizers["tokenizer"]
        with self.present(encoder), self.backend.exact():
            found = encode_t5(
                encoder,
                tokenizer,
                prompts,
                length=self.text.t5_tokens or self.card.words.length,
                weighted=self.text.weights,
                masked=True,
            )
        return Condition(found.tokens, None, {"kinds": found.kinds, "mask": one_more(found.kinds != PAD)})

    @override
    def _predict(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        tokens, ids = self._sequence(x_t, cond)
        self._mask = F.pad(cond.extra["mask"].bool(), (0, tokens.shape[1]), value=True)
        packed = self.denoiser(
            hidden_states=tokens,
            timestep=timestep / NUM_TIMESTEPS,
            encoder_hidden_states=cond.tokens,
            txt_ids=x_t.new_zeros(cond.tokens.shape[1], 3),
            img_ids=ids,
            attention_mask=self._mask,
        ).sample
        return unpack(packed, x_t.shape[-2] // 2)

    @override
    def checkpointed(self, block: nn.Module, *inputs: Any) -> Any:
        """Diffusers leaves the mask out where it recomputes single blocks."""
        more = (self._mask,) if isinstance(block, ChromaSingleTransformerBlock) else ()
        return super().checkpointed(block, *inputs, *more)


def one_more(mask: Bool[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
    """A mask of words that also lets the first token of padding through."""
    return torch.arange(mask.shape[1], device=mask.device) <= mask.sum(1, keepdim=True)

"""What FLUX.2 dev and klein share: text rows of a language model before the picture, and reference pictures behind it.

A position has four axes: picture (0 the drawn one, 10, 20, ... the references), row, column, and place in the text.
Axes: `b` batch, `c h w` latent, `n` tokens.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from einops import rearrange, repeat
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.diffusion.process import NUM_TIMESTEPS
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.language import Reading, Render, encode_chat, quarters, told_of_weights

APART = 10
"""How far reference pictures are from each other on the first axis of positions."""
AREA = 1024 * 1024
"""Pixels of a reference picture at most; a larger one is made smaller."""


class Flux2Family(Family):
    """FLUX.2."""

    @property
    @override
    def spare_axis(self) -> int:
        return int(self.denoiser_config.axes_dims_rope[0])

    @abstractmethod
    def _render(self) -> Render:
        """Writes a prompt into the template of the language model."""

    @override
    def embed(self, prompts: Sequence[str]) -> Condition:
        told_of_weights(self.card.title, prompts, self.text)
        encoder, tokenizer = self.text_encoders["text_encoder"], self.tokenizers["tokenizer"]
        length = self.card.words.length
        reading = Reading(self._render(), quarters(encoder), length, padding="max_length")
        with self.present(encoder), self.backend.autocast():
            found, _ = encode_chat(encoder, tokenizer, prompts, reading)
        return Condition(found.tokens, None, {"kinds": found.kinds})

    @override
    def embed_with(
        self, prompts: Sequence[str], references: Sequence[Image.Image], height: int, width: int
    ) -> Condition:
        del height, width  # references keep their own size
        if len(references) > self.card.references:
            raise StudioError(
                f"{len(references)} reference pictures were given, and {self.card.title} looks at {self.card.references} at "
                "most; leave some out.",
                field="reference",
            )
        latents = [self._latent(picture) for picture in references]
        tokens = torch.cat([_tokens(one) for one in latents], dim=1)
        ids = torch.cat(
            [_positions(*one.shape[-2:], picture=APART * (i + 1)) for i, one in enumerate(latents)]
        ).to(tokens.device)
        rows = len(prompts)
        return self.embed(prompts).with_extra(
            reference=repeat(tokens, "1 n c -> b n c", b=rows),
            reference_ids=repeat(ids, "n four -> b n four", b=rows),
        )

    def _latent(self, picture: Image.Image) -> Float[Tensor, "1 c h w"]:
        """The latent of a reference picture, cut to sides that the model can read."""
        processor = Flux2ImageProcessor(vae_scale_factor=self.size_multiple)
        try:
            processor.check_image_input(picture)
        except ValueError as error:
            raise StudioError(
                f"A reference picture cannot be read ({error}); give another one.", field="reference"
            ) from None
        fitting = processor._resize_if_exceeds_area(picture, AREA)
        width, height = (side // self.size_multiple * self.size_multiple for side in fitting.size)
        pixels = processor.preprocess(fitting, height=height, width=width, resize_mode="crop")
        with torch.no_grad():
            return self.encode(pixels)

    @override
    def _predict(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        height, width = x_t.shape[-2:]
        tokens, ids = _tokens(x_t), _positions(height, width).to(x_t.device)
        if "reference" in cond.extra:
            tokens = torch.cat([tokens, cond.extra["reference"].to(tokens)], dim=1)
            ids = torch.cat([ids, cond.extra["reference_ids"][0]])
        found = self.denoiser(
            hidden_states=tokens,
            timestep=timestep / NUM_TIMESTEPS,
            guidance=self._guidance(x_t, cond),
            encoder_hidden_states=cond.tokens,
            txt_ids=_places(cond.tokens.shape[1]).to(x_t.device),
            img_ids=ids,
        ).sample
        return rearrange(found[:, : height * width], "b (h w) c -> b c h w", h=height)

    def _guidance(self, x_t: Tensor, cond: Condition) -> Tensor | None:
        """What the network reads of guidance: nothing."""
        del x_t, cond

    @override
    def _mu(self, tokens: int, steps: int) -> float:
        return compute_empirical_mu(tokens, steps)


def _tokens(latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
    """Every place of a latent as a token, row by row."""
    return rearrange(latents, "b c h w -> b (h w) c")


def _positions(height: int, width: int, picture: int = 0) -> Float[Tensor, "n four"]:
    """Positions of a picture's tokens."""
    return torch.cartesian_prod(
        torch.tensor([picture]), torch.arange(height), torch.arange(width), torch.tensor([0])
    ).float()


def _places(length: int) -> Float[Tensor, "n four"]:
    """Positions of the text's tokens."""
    ids = torch.zeros(length, 4)
    ids[:, 3] = torch.arange(length)
    return ids

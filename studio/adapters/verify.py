"""Does a written file give the model that was trained? Both are asked the same question and compared."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from studio.models.base import Family
from studio.models.modes import evaluating
from studio.models.presence import unwrap

TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Largest difference, relative to the largest value (at least 1), by the coarsest precision involved."""
PROMPTS = ("a photo of a dog", "")
LARGEST_LATENT = 32
"""Height and width of the latent that is asked about, at most: one small step even on a CPU."""


@dataclass(frozen=True)
class Answer:
    """What a model says to the fixed input: its prediction and text embeddings."""

    tensors: tuple[Tensor, ...]

    def difference(self, other: "Answer") -> float:
        """Largest difference, relative to the largest value here where that is above 1."""
        pairs = zip(self.tensors, other.tensors, strict=True)
        return max(float((a - b).abs().max()) / max(1.0, float(a.abs().max())) for a, b in pairs)


def ask(family: Family, modules: Mapping[str, nn.Module]) -> Answer:
    """The answer of a family in which some modules are replaced, by component name; nothing is changed."""
    twin = copy.copy(family)
    twin.denoiser = modules.get(family.denoiser_name, unwrap(family.denoiser))
    twin.text_encoders = {
        key: modules.get(key, unwrap(module)) for key, module in family.text_encoders.items()
    }
    side = (
        min(family.default_size, LARGEST_LATENT * family.vae_scale)
        // family.size_multiple
        * family.size_multiple
    )
    noise = torch.randn(2, *family.latent_shape(side, side), generator=torch.Generator().manual_seed(0))
    device = next(twin.denoiser.parameters()).device
    with torch.no_grad(), evaluating(twin.denoiser, *twin.text_encoders.values()):
        cond = twin.with_guidance(twin.embed(PROMPTS), 3.5)
        said = twin.predict(noise.to(device), torch.tensor([0.3, 0.8], device=device), cond)
    found = (said, cond.tokens, *(() if cond.pooled is None else (cond.pooled,)))
    return Answer(tuple(value.float().cpu() for value in found))


def tolerance(family: Family, stored: torch.dtype) -> float:
    """How far a reloaded model may be off, given the precision of the file and of the computation."""
    return max(TOLERANCE[stored], TOLERANCE[family.backend.dtype])

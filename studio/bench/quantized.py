"""How far a denoiser's prediction moves when its weights are stored in fewer bits: `python -m studio.bench.quantized [MODEL ...]`."""

import logging
import sys
from dataclasses import replace

import torch
from torch import Tensor

from studio.backend.core import Backend
from studio.backend.quiet import quiet
from studio.models.build import EMBEDDED_MODELS, load
from studio.models.quantized import CODINGS
from studio.settings.run import Hardware

log = logging.getLogger(__name__)
LEVELS = 8
PROMPT = "a sticker of a dog"
EXACT = Hardware(device="cpu", precision="fp32")


def prediction(model: str, hardware: Hardware) -> Tensor:
    """What a model says of fixed noise at eight noise levels."""
    family = load(model, Backend(hardware))
    shape = family.latent_shape(family.default_size, family.default_size)
    noise = torch.randn(LEVELS, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cond = family.with_guidance(family.embed([PROMPT] * LEVELS), 3.5)
        return family.predict(noise, torch.linspace(0.1, 0.9, LEVELS), cond)


def distances(model: str) -> dict[str, float]:
    """Change of the prediction as a share of its norm, by coding."""
    exact = prediction(model, EXACT)
    found = {coding: prediction(model, replace(EXACT, quantize=coding)) for coding in CODINGS}
    return {coding: float((said - exact).norm() / exact.norm()) for coding, said in found.items()}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    quiet()
    for name in sys.argv[1:] or EMBEDDED_MODELS:
        told = [f"{coding} {share:.1%}" for coding, share in distances(name).items()]
        log.info("%s", "  ".join([name, *told]))

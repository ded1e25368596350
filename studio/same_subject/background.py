"""New backgrounds around a subject that stays: at every sampler step the clean picture is pulled to the subject.

    x0^ = m z + (1 - m) x0(x_t, t),    and the prediction that says so is given to the sampler

(blended latent diffusion, Avrahami et al. 2022, arXiv 2111.14818, as a change of the prediction, so that it works with
every sampler and family). Axes: `b` pictures, `c h w` latent, `H W` pixels.
"""

import torch
from jaxtyping import Float
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.contracts.sampling import PlainEdit, Request
from studio.diffusion.guidance import Guidance
from studio.diffusion.objective import latent_mask
from studio.models.base import Family
from studio.models.draw import draw, guided
from studio.same_subject import references

FEATHER = 0.01
"""Softness of the subject's outline, as a share of the side."""


class KeepSubject(PlainEdit):
    """Holds one picture's subject while the rest is drawn."""

    def __init__(self, family: Family, picture: Image.Image, mask: Image.Image) -> None:
        self._family = family
        with torch.no_grad():
            given = references.tensors([picture], picture.height, picture.width)
            self._clean = family.encode(given.to(family.backend.device))
        white = pil_to_tensor(mask).float()[None] / 255
        self._kept = latent_mask(white, (self._clean.shape[-2], self._clean.shape[-1])).to(self._clean)

    @override
    def predict(
        self,
        x_t: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        *,
        cond: Condition,
        uncond: Condition | None,
        guidance: Guidance,
    ) -> Float[Tensor, "b c h w"]:
        """The usual prediction, with the subject in place of what it says there."""
        family, process = self._family, self._family.process
        usual = guided(family, x_t, t, cond=cond, uncond=uncond, guidance=guidance)
        x0 = process.x0(usual, x_t, t, family.prediction)
        x0 = self._kept * self._clean + (1 - self._kept) * x0
        alpha, sigma = (f(t)[:, None, None, None] for f in (process.alpha, process.sigma))
        return process.target(x0, (x_t - alpha * x0) / sigma, t, family.prediction)


def repainted(family: Family, picture: Image.Image, mask: Image.Image, request: Request) -> Image.Image:
    """A picture whose background is drawn anew as a request says; the subject's own pixels are put back."""
    edit = KeepSubject(family, picture, mask)
    width, height = picture.size
    asked = Request(
        prompts=request.prompts, seed=request.seed, steps=request.steps, guidance=request.guidance,
        width=width, height=height, edits=[edit],
    )  # fmt: skip
    drawn = draw(family, asked)[0]
    soft = mask.filter(ImageFilter.GaussianBlur(max(FEATHER * width, 0.5)))
    return Image.composite(picture, drawn, soft)

"""Reads a written file back through diffusers' own loader, and compares. Axes: `b` rows, `c h w` latent."""

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from studio.adapters.files import read
from studio.adapters.merge import bare
from studio.adapters.verify import tolerance
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.presence import unwrap
from studio.models.vision_tower import Seen
from trainers.ip_adapter.config import Global
from trainers.ip_adapter.files import Loaded, projection_of, split

_TIME = 0.5


@torch.no_grad()
def compare(path: Path, loaded: Loaded, family: Family, stored: torch.dtype) -> float:
    """Largest difference between what the trained network and the file say, relative to the largest value.

    diffusers reads such files on U-Nets alone; for other families there is nothing to compare with, and it is 0.

    Raises:
        StudioError: It is more than precision explains.
    """
    if not isinstance(unwrap(family.denoiser), UNet2DConditionModel):
        return 0.0
    side = min(family.default_size, 64)
    noise = torch.randn(1, *family.latent_shape(side, side), generator=torch.Generator().manual_seed(0)).to(
        family.backend.device
    )
    t = torch.full((1,), _TIME, device=noise.device)
    picture = torch.rand(
        1, 3, loaded.tower.size, loaded.tower.size, generator=torch.Generator().manual_seed(1)
    )
    seen, cond = loaded.tower(picture.to(noise.device) * 2 - 1), family.embed(["a dog"])
    with loaded.network.shown(family, loaded.network(seen)):
        ours = family.predict(noise, t, cond).cpu()
    theirs = through_diffusers(path, family, seen).predict(noise, t, cond).cpu()
    difference = float((ours - theirs).abs().max()) / max(1.0, float(ours.abs().max()))
    allowed = tolerance(family, stored)
    if not difference <= allowed:
        raise StudioError(
            f"{path.name} read back through diffusers differs from the trained adapter by {difference:.2g} (allowed "
            f"{allowed:.2g}), so it was not kept; choose --precision fp32."
        )
    return difference


def through_diffusers(path: Path, family: Family, seen: Seen) -> Family:
    """The family with a copy of its U-Net into which `load_ip_adapter` put a file, looking at one picture."""
    parts = split(read(path)[0])
    kind, _ = projection_of(parts["image_proj"], path)
    pipeline: Any = family.pipeline()
    pipeline.register_modules(unet=bare(unwrap(family.denoiser)))
    pipeline.load_ip_adapter(
        parts, subfolder="", weight_name="", image_encoder_folder=None, low_cpu_mem_usage=False
    )
    twin = copy.copy(family)
    twin.denoiser = _Looking(
        pipeline.unet, (seen.pooled if isinstance(kind, Global) else seen.tokens)[:, None]
    )
    return twin


class _Looking(nn.Module):
    """A U-Net that is given its picture with every call."""

    def __init__(self, unet: nn.Module, given: Tensor) -> None:
        super().__init__()
        self.unet, self.given = unet, given

    def forward(self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], **given: Any) -> Any:
        """The U-Net's output."""
        added = {**(given.pop("added_cond_kwargs", None) or {}), "image_embeds": [self.given]}
        return self.unet(x_t, timestep, added_cond_kwargs=added, **given)

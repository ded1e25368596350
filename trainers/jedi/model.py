"""The joint-image network: sets of pictures through one denoiser with coupled self-attention and a widened input.

Axes: `b` sets, `n` members, `c h w` latent.
"""

from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from studio.contracts.condition import Condition
from studio.models.base import Family
from studio.models.entry import hinted, more_channels
from studio.models.sets import Coupling, coupling


@dataclass(frozen=True)
class Members:
    """Sets as the network sees them.

    Attributes:
        x_t: Noisy latents.
        t: Time of each set.
        clean: Clean latents; only those of references are looked at.
        given: 1 for a reference, 0 for a picture to draw (the opposite of Stable Diffusion's inpainting masks).
        coupled: Sets whose members see each other; None for all.
        present: Members that are no padding; None for all.
    """

    x_t: Float[Tensor, "b n c h w"]
    t: Float[Tensor, " b"]
    clean: Float[Tensor, "b n c h w"]
    given: Bool[Tensor, "b n"]
    coupled: Bool[Tensor, " b"] | None = None
    present: Bool[Tensor, "b n"] | None = None

    def without_references(self) -> "Members":
        """The same with nothing given and every member by itself: the mode of condition dropout."""
        nobody = torch.zeros_like(self.given)
        return replace(self, given=nobody, coupled=nobody[:, 0])


def reference_input(family: Family) -> nn.Conv2d:
    """What the first layer gains for [m z; m]: as many channels as a latent has and one, zero at first."""
    return more_channels(family, family.latent_shape(family.default_size, family.default_size)[0] + 1)


def predict(
    family: Family, inputs: nn.Module, members: Members, cond: Condition
) -> Float[Tensor, "b n c h w"]:
    """The native prediction for every member; the condition has a row a member, set-major."""
    size = members.given.shape[1]
    mask = rearrange(members.given, "b n -> b n 1 1 1").to(members.clean)
    plane = mask.expand(-1, -1, -1, *members.clean.shape[-2:])
    seen = rearrange(torch.cat([mask * members.clean, plane], dim=2), "b n c h w -> (b n) c h w")
    rows = rearrange(members.x_t, "b n c h w -> (b n) c h w")
    coupled = Coupling(size, members.coupled, members.present, family.spare_axis)
    with hinted(family, inputs(seen)), coupling(family, coupled):
        found = family.predict(rows, repeat(members.t, "b -> (b n)", n=size), cond)
    return rearrange(found, "(b n) c h w -> b n c h w", n=size)

"""The linear autoencoder of 8x8 patches: the bar that a learned one must pass, and where its encoder starts."""

import torch
from diffusers import AutoencoderTiny
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

PATCH = 8
NUM_COMPONENTS = 16
_CHANNELS = 3


class PatchPca:
    """Principal components of 8x8 RGB patches with values in [0, 1].

    Args:
        images: Pictures to fit on.
        num_components: Numbers kept a patch.
    """

    def __init__(self, images: UInt8[Tensor, "b 3 h w"], num_components: int = NUM_COMPONENTS) -> None:
        patches = _to_patches(images.float() / 255)
        rows = rearrange(patches, "b h w d -> (b h w) d")
        self.mean = rows.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(rows.T))
        self.scale = values.flip(0)[:num_components].sqrt()
        self.basis = vectors.flip(1)[:, :num_components]

    def reconstruct(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [-1, 1] through the linear bottleneck and back."""
        centered = _to_patches((images + 1) / 2) - self.mean
        patches = centered @ self.basis @ self.basis.T + self.mean
        merged = rearrange(patches, "b h w (c i j) -> b c (h i) (w j)", i=PATCH, j=PATCH, c=_CHANNELS)
        return merged.clamp(0, 1) * 2 - 1

    def projection(self) -> Float[Tensor, "k d"]:
        """Rows that map a centered patch to latents whose mean square is 0.8.

        The components are whitened half-way (their spread is its square root): the coarse ones stay stronger, so
        that a denoiser settles them first.
        """
        target = self.scale.sqrt()
        target = target / target.square().mean().sqrt() * 0.9
        return self.basis.T * (target / self.scale)[:, None]


def _to_patches(images: Tensor) -> Tensor:
    return rearrange(images, "b c (h i) (w j) -> b h w (c i j)", i=PATCH, j=PATCH)


@torch.no_grad()
def start_encoder(autoencoder: AutoencoderTiny, pca: PatchPca) -> None:
    """Makes the encoder compute exactly the scaled PCA.

    Each strided convolution gathers the 2x2 pixels it skips into channels (3 -> 12 -> 48), the last one applies the
    projection. Pixel values are not negative, so that the residual blocks between, whose last layer is set to zero,
    are the identity in spite of their ReLU.
    """
    layers = list(autoencoder.encoder.layers)
    first, half, quarter, eighth, last = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    first.weight[:_CHANNELS], first.bias[:_CHANNELS] = 0, 0  # pyright: ignore[reportOptionalSubscript]  # AutoencoderTiny's outer convolutions have a bias
    for channel in range(_CHANNELS):
        first.weight[channel, channel, 1, 1] = 1
    _gather(half, _CHANNELS)
    _gather(quarter, 4 * _CHANNELS)
    weight = rearrange(
        pca.projection(),
        "k (c i3 i2 i1 j3 j2 j1) -> k (c i1 j1 i2 j2) i3 j3",
        c=_CHANNELS,
        i1=2,
        i2=2,
        i3=2,
        j1=2,
        j2=2,
        j3=2,
    )
    eighth.weight[:NUM_COMPONENTS] = 0
    eighth.weight[:NUM_COMPONENTS, : weight.shape[1], 1:, 1:] = weight
    last.weight.zero_()
    for channel in range(NUM_COMPONENTS):
        last.weight[channel, channel, 1, 1] = 1
    last.bias.copy_(-(pca.projection() @ pca.mean))  # pyright: ignore[reportOptionalMemberAccess]  # as above
    for block in layers:
        if not isinstance(block, nn.Conv2d):
            block.conv[-1].weight.zero_()
            block.conv[-1].bias.zero_()


def _gather(conv: nn.Conv2d, num_channels: int) -> None:
    """Lets a strided convolution lay each 2x2 square of a channel side by side."""
    conv.weight[: 4 * num_channels] = 0
    for channel in range(num_channels):
        for square in range(4):
            conv.weight[4 * channel + square, channel, 1 + square // 2, 1 + square % 2] = 1


def psnr(first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each picture in dB; values in [-1, 1]."""
    error = ((first - second) / 2).square().flatten(1).mean(1)
    return -10 * error.clamp(min=1e-10).log10()

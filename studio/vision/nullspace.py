"""What a vision transformer cannot see: the exact nullspace of its patch embedding, and noise its encoder ignores.

    Liu, Singh, Li, Wang, "Approximate Nullspace Augmented Finetuning for Robust Vision Transformers", CPAL 2025,
    arXiv 2403.10476

Axes: `b` pictures, `c h w` picture, `n` patches, `d` width, `i` inputs of a patch (channel, row, column), `r` basis.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from studio.attacks.gradient import under_attack
from studio.errors import StudioError
from studio.models.vit import Classifier, patch_embed

StopMetric = Literal["prob_mse", "logit_l2"]


@dataclass(frozen=True)
class PatchNullspace:
    """The inputs of a patch embedding that it maps to zero.

    Attributes:
        basis: Orthonormal columns, float64; none where the embedding loses nothing.
        rank: Of the embedding's matrix, width x inputs.
        side: Of a patch in pixels.
    """

    basis: Float[Tensor, "i r"]
    rank: int
    side: int

    @property
    def nullity(self) -> int:
        """Dimension of the nullspace, measured."""
        return self.basis.shape[1]

    @property
    def num_inputs(self) -> int:
        """Numbers in a patch."""
        return self.basis.shape[0]

    def noise(self, images: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
        """Random noise for normalized pictures that the embedding maps to zero, float64, of unit variance a direction.

        Raises:
            StudioError: The nullspace is empty.
        """
        if not self.nullity:
            raise StudioError(
                f"The patch embedding has full rank {self.rank} of {self.num_inputs} inputs: no picture noise is invisible "
                "to it; take a model whose patches have more numbers than its width, such as vit_small_patch16_224.",
                field="model",
            )
        rows, columns = images.shape[2] // self.side, images.shape[3] // self.side
        numbers = torch.randn(
            len(images), rows * columns, self.nullity, generator=generator, dtype=torch.float64
        )
        patches = numbers @ self.basis.cpu().T
        return rearrange(
            patches, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, w=columns, p=self.side, q=self.side
        ).to(images.device)

    def overlap(self, other: "PatchNullspace") -> float:
        """How much of this nullspace lies in another one: 1 the same, near nullity / inputs by chance."""
        if not self.nullity:
            return 1.0
        return float((other.basis.T @ self.basis).square().sum() / self.nullity)


def projection(model: Classifier) -> nn.Conv2d:
    """The convolution that embeds patches.

    Raises:
        StudioError: Patches overlap, or the stem is something else.
    """
    found = dict(patch_embed(model).named_children()).get("proj")
    if not isinstance(found, nn.Conv2d) or found.stride != found.kernel_size or any(found.padding):  # pyright: ignore[reportArgumentType]  # padding is a tuple here
        raise StudioError(
            f"The patches of {model.name!r} overlap or pass through more than one layer, so its embedding has no nullspace "
            "that can be written down; choose a plain vision transformer such as vit_small_patch16_224.",
            field="model",
        )
    return found


def patch_nullspace(model: Classifier) -> PatchNullspace:
    """The exact nullspace of the patch embedding, by SVD over all channels together (sec. 1 of the method's notes).

    A singular value counts as zero below max(width, inputs) * eps(float32) times the largest: the rank is measured,
    as pretrained embeddings can have fewer independent rows than the shape says.
    """
    layer = projection(model)
    matrix = rearrange(layer.weight.detach().double().cpu(), "d c p q -> d (c p q)")
    _, singular, right = torch.linalg.svd(matrix, full_matrices=True)
    bound = max(matrix.shape) * torch.finfo(torch.float32).eps * singular[0]
    rank = int((singular > bound).sum())
    return PatchNullspace(rearrange(right[rank:], "r i -> i r"), rank, layer.kernel_size[0])


def in_pixels(model: Classifier, noise: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Noise of normalized pictures as noise of pictures in [0, 1]: x' = (x - mean) / std."""
    return noise * model.std


@dataclass(frozen=True)
class Invisibility:
    """How little a change of pictures changes what a model computes; relative l2 norms."""

    pixels: float
    embedding: float
    logits: float


@torch.no_grad()
def invisibility(model: Classifier, images: Tensor, changed: Tensor) -> Invisibility:
    """Relative change of pixels, patch embeddings and logits."""

    def relative(before: Tensor, after: Tensor) -> float:
        return float((after - before).norm() / before.norm().clamp_min(1e-12))

    return Invisibility(
        pixels=relative(images, changed),
        embedding=relative(model.tokens(images), model.tokens(changed)),
        logits=relative(model(images), model(changed)),
    )


def as_saved(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Pictures as an 8-bit file keeps them: clipped and rounded, which destroys the exact property."""
    return (images.clamp(0, 1) * 255).round() / 255


def fit_inside(
    images: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], margin: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Pictures squeezed into [margin, 1 - margin], and the noise scaled so that their sum stays in [0, 1]."""
    largest = noise.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    return margin + (1 - 2 * margin) * images, noise * (margin / largest)


@dataclass(frozen=True)
class Found:
    """Outcome of a search for token noise."""

    noise: Float[Tensor, "1 n d"]
    steps: int
    change: float
    stopped: bool
    """Whether the change fell below the bound; if not, the noise is not benign."""


def search_noise(
    model: Classifier,
    batches: Iterable[Float[Tensor, "b c h w"]],
    start: Float[Tensor, "1 n d"],
    *,
    eps: float,
    lr: float,
    metric: StopMetric = "prob_mse",
) -> Found:
    """Token noise that hardly changes the outputs, from a large start (sec. 2, "approximate encoder nullspace").

    Minimizes mean_x ||F(E(x) + v) - F(E(x))||_2 over the logits and stops at the first batch whose change is below
    `eps`: starting large and stopping at the boundary gives a large benign vector. The model is in eval mode.

    Departure: Adam instead of AdamW, whose weight decay would shrink v against the aim; a fixed rate, as the released
    schedule hardly decays over the batches used.

    Args:
        model: Its weights are not changed.
        batches: Fresh pictures, one batch a step; the search ends when they do.
        start: v_0, uniform in [-lim, lim].
        eps: Bound on the stop metric.
        lr: Rate of Adam on v.
        metric: `prob_mse`, the mean over pictures of sum_k (p_k(v) - p_k)^2 (the code); `logit_l2` (the text).
    """
    noise = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([noise], lr=lr)
    change, step = torch.inf, 0
    with under_attack(model, start.device):
        for step, images in enumerate(batches, 1):
            with torch.no_grad():
                tokens, plain = model.tokens(images), model(images)
            moved = model.from_tokens(tokens + noise)
            change = float(_change(moved.detach(), plain, metric))
            if change < eps:
                return Found(noise.detach(), step, change, stopped=True)
            loss = torch.linalg.vector_norm(moved - plain, dim=1).mean()
            noise.grad = torch.autograd.grad(loss, noise)[0]
            optimizer.step()
    return Found(noise.detach(), step, change, stopped=False)


@torch.no_grad()
def noise_change(
    model: Classifier, images: Float[Tensor, "b c h w"], noise: Tensor, metric: StopMetric = "prob_mse"
) -> float:
    """m(v): how much token noise changes the outputs on these pictures."""
    return float(_change(model.from_tokens(model.tokens(images) + noise), model(images), metric))


def permuted(noise: Float[Tensor, "1 n d"], generator: torch.Generator) -> Float[Tensor, "1 n d"]:
    """The same numbers in another order: the norm without the direction, the control of every claim about v."""
    flat = noise.reshape(-1)
    return flat[torch.randperm(len(flat), generator=generator).to(flat.device)].reshape(noise.shape)


def _change(moved: Tensor, plain: Tensor, metric: StopMetric) -> Tensor:
    if metric == "logit_l2":
        return torch.linalg.vector_norm(moved - plain, dim=1).mean()
    return F.mse_loss(moved.softmax(1), plain.softmax(1), reduction="sum") / len(plain)

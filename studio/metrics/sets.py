"""Numbers about sets of pictures: how different they are, how far one set is from another.

Axes: `b` pictures, `n m` members of a set, `d` features.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from studio.errors import StudioError
from studio.metrics.features import Judge
from studio.metrics.images import stack


@runtime_checkable
class Spread(Protocol):
    """What every diversity is."""

    name: str

    def __call__(self, images: Sequence[Image]) -> float:
        """How different pictures of one prompt are; 0 for copies."""
        ...


def mean_of_pairs(matrix: Float[Tensor, "n n"]) -> float:
    """Mean over the pairs of different members."""
    n = len(matrix)
    return float((matrix.double().sum() - matrix.double().diagonal().sum()) / (n * (n - 1)))


class FeatureSpread:
    """1 minus the mean cosine between the pictures."""

    def __init__(self, judge: Judge) -> None:
        self._judge, self.name = judge, f"1 - cosine, {judge.name}"

    def __call__(self, images: Sequence[Image]) -> float:
        """From 0 (copies) to 2."""
        features = self._judge.pictures(_at_least_two(images))
        return max(0.0, 1 - mean_of_pairs(features @ features.T))


class LpipsSpread:
    """Mean LPIPS (Zhang et al. 2018, arXiv 1801.03924) between the pictures: DIV of arXiv 2208.12242."""

    def __init__(self, folder: str, device: torch.device | str, size: int = 64) -> None:
        weights = _alexnet(Path(folder))
        from torchmetrics.functional.image.lpips import _LPIPS

        self.name, self._size, self._device = "LPIPS AlexNet", size, device
        network = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
        names = [f"slice{i}.{j}" for i, j in ((1, 0), (2, 3), (3, 6), (4, 8), (5, 10))]
        renamed = {
            f"{name}.{part}": weights[f"features.{name.split('.')[1]}.{part}"]
            for name in names
            for part in ("weight", "bias")
        }
        network.net.load_state_dict(renamed)
        self._network = network.to(device).eval()

    @torch.no_grad()
    def __call__(self, images: Sequence[Image]) -> float:
        """From 0 (copies) up."""
        pixels = stack(_at_least_two(images), max(self._size, min(min(i.size) for i in images))).to(
            self._device
        )
        distances = torch.stack(
            [self._network(row[None].expand_as(pixels), pixels).flatten() for row in pixels]
        )
        return mean_of_pairs(distances)


def frechet(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"]) -> float:
    """Squared Frechet distance of two sets of features, as in FID (Heusel et al. 2017, arXiv 1706.08500, eq. 6).

    In float64. The trace of the root of the product of the covariances A A' and B B' is the sum of the singular
    values of A' B, which needs no matrix root and is exact for singular covariances (few pictures).
    """
    if min(len(first), len(second)) < 2:
        raise StudioError("A distance between sets needs at least two pictures in each.")
    a, b = first.double(), second.double()
    centered_a, centered_b = ((x - x.mean(dim=0)) / (len(x) - 1) ** 0.5 for x in (a, b))
    means = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    spreads = centered_a.square().sum() + centered_b.square().sum()
    shared = torch.linalg.svdvals(centered_a @ centered_b.T).sum()
    return max(0.0, float(means + spreads - 2 * shared))


def _at_least_two(images: Sequence[Image]) -> Sequence[Image]:
    if len(images) < 2:
        raise StudioError(
            f"Diversity compares the pictures of one prompt, but there is {len(images)}; ask for 2 or more a prompt.",
            field="num_images",
        )
    return images


def _alexnet(folder: Path) -> dict[str, Tensor]:
    """Weights of torchvision's AlexNet from a folder."""
    safe, plain = folder / "alexnet.safetensors", folder / "alexnet-owt-7be5be79.pth"
    if safe.is_file():
        from safetensors.torch import load_file

        return load_file(safe)
    if plain.is_file():
        return torch.load(plain, map_location="cpu", weights_only=True)
    raise StudioError(
        f"LPIPS finds neither {safe.name} nor {plain.name} in {str(folder)!r}; give the folder of torchvision's "
        "AlexNet weights, or take diversity:feature-diversity, which needs no download.",
        field="weights",
    )

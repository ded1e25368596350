"""A small classifier, trained for seconds on drawn pictures: what the tests of attacks and robustness need."""

import copy
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from studio.models.vit import Classifier, load_classifier

CLASSES = ("plaid", "spots", "stripes", "waves")
SIDE = 32


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy pictures with one of four faint tile patterns: (b, 3, 32, 32) in [0, 1], and which pattern."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    tiles = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    patterns = F.interpolate(tiles, size=(SIDE, SIDE))
    noise = 0.15 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    return (0.5 + 0.08 * patterns[labels] + noise).clamp(0, 1), labels


@cache
def _trained(name: str, steps: int) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = load_classifier(name, CLASSES).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        for step in range(steps):
            images, labels = pictures(32, step + 1)
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval()


def trained(name: str = "tiny:vit", steps: int = 100) -> Classifier:
    """A copy of the trained model."""
    return copy.deepcopy(_trained(name, steps))


def untrained(name: str = "tiny:vit", seed: int = 0) -> Classifier:
    """A fresh model for the same classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return load_classifier(name, CLASSES).eval()

"""Judges from outside: what the person's own code says about pictures, checked.

Axes: `b` pictures, `c h w` image, `d` features. Images are in [-1, 1].
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional as F

from studio.catalog import outside
from studio.errors import StudioError
from studio.metrics.backbones import TimmBackbone
from studio.metrics.images import fit, to_tensor
from studio.settings.custom import Custom

SIDE = 224
"""Height and width of the pictures that a backbone gets; most take them so, others make them smaller."""


class _Called(nn.Module):
    """A function where a network is expected."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, images: Tensor) -> Any:
        return self._function(images)


class OwnBackbone(TimmBackbone):
    """(images (b 3 224 224)) -> features (b d), by the person's own code; unit length is made here."""

    def __init__(self, custom: Custom) -> None:
        """Find it.

        Raises:
            StudioError: It is not there, or does not take its options.
        """
        found = outside.made(custom, what="Backbone", field="judges")
        super().__init__(
            found if isinstance(found, nn.Module) else _Called(found),
            custom.spoken(),
            SIDE,
            (0.5,) * 3,
            (0.5,) * 3,
        )

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Unit-length features of images of any size.

        Raises:
            StudioError: It gave something else than a row of finite numbers a picture.
        """
        given = self.model(fit(images, self.size))
        if not isinstance(given, Tensor) or given.ndim != 2 or len(given) != len(images):
            raise _wrong("Backbone", self.name, given, f"features ({len(images)}, d)")
        return F.normalize(_finite("Backbone", self.name, given).float(), dim=-1)


def load_own(custom: Custom, device: torch.device | str) -> OwnBackbone:
    """A backbone from outside, frozen."""
    return OwnBackbone(custom).to(device).float().eval().requires_grad_(False)


class OwnScore:
    """(images (b 3 H W), prompts) -> scores (b), by the person's own code."""

    def __init__(self, custom: Custom, device: torch.device | str, batch_size: int) -> None:
        """Find it.

        Raises:
            StudioError: It is not there, or does not take its options.
        """
        self._path, self._device, self._size = custom.path, device, batch_size
        self._function = _placed(outside.made(custom, what="Scorer", field="judges.custom"), device)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        """Scores of pictures, on the CPU; those of one size that follow each other are judged together.

        Raises:
            StudioError: It gave something else than one finite number a picture.
        """
        found: list[Tensor] = []
        start = 0
        while start < len(images):
            stop = start + 1
            while stop < min(len(images), start + self._size) and images[stop].size == images[start].size:
                stop += 1
            found.append(self._judge(images[start:stop], prompts[start:stop]))
            start = stop
        return torch.cat(found) if found else torch.zeros(0)

    def _judge(self, images: Sequence[Image], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        pixels = torch.stack([to_tensor(image) for image in images]).to(self._device)
        given = self._function(pixels, list(prompts))
        scores = _numbers("Scorer", self._path, given)
        if scores.shape != (len(images),):
            raise _wrong("Scorer", self._path, scores, f"one number a picture, ({len(images)},)")
        return _finite("Scorer", self._path, scores)


class OwnSpread:
    """(images (n 3 H W) of one prompt) -> how different they are, by the person's own code."""

    def __init__(self, custom: Custom, device: torch.device | str) -> None:
        """Find it.

        Raises:
            StudioError: It is not there, or does not take its options.
        """
        self.name, self._device = custom.spoken(), device
        self._function = _placed(outside.made(custom, what="Diversity", field="judges.diversity"), device)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image]) -> float:
        """What it gives.

        Raises:
            StudioError: It gave something else than one finite number.
        """
        given = self._function(torch.stack([to_tensor(image) for image in images]).to(self._device))
        number = _numbers("Diversity", self.name, given)
        if number.numel() != 1:
            raise _wrong("Diversity", self.name, number, "one number")
        return float(_finite("Diversity", self.name, number))


def _placed(found: Callable[..., Any], device: torch.device | str) -> Callable[..., Any]:
    """A network on its device, for judging; anything else as it is."""
    return found.to(device).eval().requires_grad_(False) if isinstance(found, nn.Module) else found


def _numbers(what: str, path: str, given: object) -> Tensor:
    try:
        return torch.as_tensor(given).float().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise StudioError(f"{what} {path!r} gave a {type(given).__name__}; it must give numbers.") from None


def _finite(what: str, path: str, values: Tensor) -> Tensor:
    if not bool(torch.isfinite(values).all()):
        raise StudioError(f"{what} {path!r} gave numbers that are not finite.")
    return values


def _wrong(what: str, path: str, given: object, wanted: str) -> StudioError:
    found = f"the shape {tuple(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
    return StudioError(f"{what} {path!r} gave {found}; it must give {wanted}.")

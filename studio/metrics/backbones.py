"""Judges: what turns pictures and texts into features. Always in float32, whatever the trained model uses.

Axes: `b` pictures or texts, `c h w` image, `d` features, `l` text length.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from jaxtyping import Float
from timm.data.config import resolve_data_config
from torch import Tensor, nn
from torch.nn import functional as F

from studio import assets
from studio.errors import StudioError, unknown
from studio.metrics.images import fit
from studio.models.clip_open import load_open_clip, missing_weights

log = logging.getLogger(__name__)

EMBEDDED = ("efficientnet-lite0", "studio-tiny-clip")
"""Judges that come with the studio, under assets/models."""
EMBEDDED_SIZES = {"efficientnet-lite0": 128}
"""Input sides of embedded judges, best for 64 px stickers (same-sprite AUC 0.97 at 128 px, 0.89 at 64 px)."""


class TimmBackbone(nn.Module):
    """Pooled features of a timm model. Differentiable, so that it can also be a reward."""

    mean: Tensor
    std: Tensor
    model: Any

    def __init__(
        self, model: nn.Module, name: str, size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.model, self.name, self.size = model, name, size
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Unit-length features of images in [-1, 1] of any size."""
        pixels = (fit(images, self.size) + 1) / 2
        return F.normalize(self.model((pixels - self.mean) / self.std), dim=-1)


class ClipBackbone(TimmBackbone):
    """Features of pictures and of texts in one space."""

    def __init__(self, model: Any, tokenizer: Callable[[list[str]], Tensor], name: str) -> None:
        size = model.visual.image_size
        height = size[0] if isinstance(size, tuple) else size
        super().__init__(model, name, height, model.visual.image_mean, model.visual.image_std)
        self.tokenizer = tokenizer

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Unit-length features of images in [-1, 1] of any size."""
        pixels = (fit(images, self.size) + 1) / 2
        return self.model.encode_image((pixels - self.mean) / self.std, normalize=True)

    def texts(self, prompts: Sequence[str]) -> Float[Tensor, "b d"]:
        """Unit-length features of texts."""
        return self.model.encode_text(self.tokenizer(list(prompts)).to(self.mean.device), normalize=True)


def load_timm(model: str, device: torch.device | str) -> TimmBackbone:
    """A timm judge by embedded name, folder, or timm name."""
    folder = _folder(model)
    source = f"local-dir:{folder}" if folder else model
    if not folder and model.split(".", maxsplit=1)[0] not in timm.list_models():
        raise unknown(
            "timm model", model, ["efficientnet-lite0", *timm.list_pretrained("*dino*")], field="model"
        )
    try:
        network: Any = timm.create_model(source, pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        raise missing_weights(model, error) from error
    config = resolve_data_config({}, model=network)
    size = EMBEDDED_SIZES.get(model, int(config["input_size"][-1]))
    judge = TimmBackbone(network, model, size, config["mean"], config["std"])
    log.info("judge %s: %d px, %d features", model, size, network.num_features)
    return judge.to(device).float().eval().requires_grad_(False)


def load_clip(model: str, pretrained: str, device: torch.device | str) -> ClipBackbone:
    """A CLIP judge by embedded name, folder, or open_clip name."""
    folder = _folder(model)
    if not folder and model not in open_clip.list_models():
        raise unknown("open_clip model", model, ["studio-tiny-clip", *open_clip.list_models()], field="model")
    found = load_open_clip(model, folder, pretrained)
    judge = ClipBackbone(found.network, found.tokenizer, found.name)
    return judge.to(device).float().eval().requires_grad_(False)


def _folder(model: str) -> Path | None:
    """The folder that a name means: an embedded model's, or the given one."""
    for candidate in (assets.root() / "models" / model, Path(model)):
        if (candidate / "config.json").is_file() or (candidate / "open_clip_config.json").is_file():
            return candidate
    if "/" in model or model in EMBEDDED:
        raise StudioError(
            f"There is no judge {model!r}: neither assets/models nor the given path holds its config.json (timm) "
            "or open_clip_config.json (open_clip); give a folder saved by timm or open_clip, or a name.",
            field="model",
        )
    return None

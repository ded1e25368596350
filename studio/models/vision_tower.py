"""Frozen image encoders that let a model see a reference picture: one vector for it all, and a token a patch.

Read: CLIP of transformers (a folder or a hub name), open_clip (a name or a folder, and with it studio-tiny-clip) and
timm (a name or a folder; then the cells of the last feature map are the patches). Pictures are padded to a square, not
cropped: CLIP's center crop loses the edges of a long picture. Axes: `b` pictures, `s` side, `n` tokens, `d e` widths.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from typing_extensions import override

from studio import assets
from studio.backend.core import Backend
from studio.errors import StudioError, unknown
from studio.models.clip_open import quick_gelu

TINY = "tiny:clip"
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_TIMM_SIDE = 128
"""Input side of efficientnet-lite0; best for 64 px stickers (see `studio.metrics.backbones`)."""


@dataclass(frozen=True)
class Seen:
    """What a tower says of pictures: a token for the whole and each patch, and one vector."""

    tokens: Float[Tensor, "b n d"]
    pooled: Float[Tensor, "b e"]

    def where(self, keep: Bool[Tensor, " b"], other: "Seen") -> "Seen":
        """These rows where `keep` says so, else the one row of another."""
        return Seen(
            torch.where(keep[:, None, None], self.tokens, other.tokens),
            torch.where(keep[:, None], self.pooled, other.pooled),
        )


class VisionTower(nn.Module, ABC):
    """A frozen encoder.

    Attributes:
        name: What it was loaded as.
        size: Side of its input, in pixels.
        width, pooled_width: Widths of a token and of the vector.
        num_tokens: Tokens of a picture.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.name, self.size = name, size
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def measure(self) -> None:
        """Note widths and number of tokens, by looking at a blank picture."""
        seen = self(torch.zeros(1, 3, self.size, self.size, device=self.mean.device))
        self.num_tokens, self.width = seen.tokens.shape[1:]
        self.pooled_width = seen.pooled.shape[1]

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Seen:
        """Square pictures in [-1, 1] as the tower sees them."""
        if images.shape[-1] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
        pixels = (images.clamp(-1, 1) / 2 + 0.5 - self.mean) / self.std
        return self.look(pixels.to(self.mean.dtype))

    @torch.no_grad()
    def blank(self) -> Seen:
        """What stands for no picture: the tokens of zero pixels, and a zero vector (IP-Adapter's official code)."""
        seen = self.look(self.mean.new_zeros(1, 3, self.size, self.size))
        return Seen(seen.tokens, torch.zeros_like(seen.pooled))

    @abstractmethod
    def look(self, pixels: Float[Tensor, "b 3 s s"]) -> Seen:
        """Standardized pictures of the tower's own size."""

    def tokens(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n d"]:
        """The tokens of such pictures alone, which an encoder may know before its last layers."""
        return self.look(pixels).tokens


class Transformers(VisionTower):
    """CLIP of transformers, the form that IP-Adapter files are trained with."""

    def __init__(self, name: str, model: CLIPVisionModelWithProjection, layer: int) -> None:
        super().__init__(name, model.config.image_size, _CLIP_MEAN, _CLIP_STD)
        self.model, self.layer = model, layer

    @override
    def look(self, pixels: Float[Tensor, "b 3 s s"]) -> Seen:
        seen = self.model(pixels, output_hidden_states=True)
        return Seen(seen.hidden_states[self.layer], seen.image_embeds)


class OpenClip(VisionTower):
    """The image tower of an open_clip model."""

    def __init__(self, name: str, model: Any, layer: int) -> None:
        size = model.visual.image_size
        side = size[0] if isinstance(size, tuple) else size
        super().__init__(name, side, model.visual.image_mean, model.visual.image_std)
        self.model, self.layer = model.visual, layer

    @override
    def look(self, pixels: Float[Tensor, "b 3 s s"]) -> Seen:
        found = self._intermediates(pixels)
        return Seen(_joined(found), found["image_features"])

    @override
    def tokens(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n d"]:
        return _joined(self._intermediates(pixels, stop_early=True, intermediates_only=True))

    def _intermediates(self, pixels: Tensor, **how: bool) -> dict[str, Any]:
        return self.model.forward_intermediates(
            pixels, indices=[self.layer], output_fmt="NLC", output_extra_tokens=True, **how
        )


def _joined(found: dict[str, Any]) -> Float[Tensor, "b n d"]:
    """open_clip's class token and patches."""
    return torch.cat([found["image_intermediates_prefix"][0], found["image_intermediates"][0]], dim=1)


class Timm(VisionTower):
    """A timm backbone: the cells of its last feature map, and their mean."""

    def __init__(self, name: str, model: Any, side: int) -> None:
        config = timm.data.resolve_data_config({}, model=model)
        super().__init__(name, side or config["input_size"][-1], config["mean"], config["std"])
        self.model = model

    @override
    def look(self, pixels: Float[Tensor, "b 3 s s"]) -> Seen:
        found = self.model.forward_features(pixels)
        pooled = self.model.forward_head(found, pre_logits=True)
        tokens = rearrange(found, "b d h w -> b (h w) d") if found.ndim == 4 else found
        return Seen(torch.cat([pooled[:, None], tokens], dim=1) if found.ndim == 4 else tokens, pooled)


def load_tower(name: str, backend: Backend, *, layer: int = -2) -> VisionTower:
    """A frozen tower on the backend's device.

    Args:
        name: studio-tiny-clip, efficientnet-lite0, `tiny:clip` (random weights), a folder of transformers, open_clip or
            timm, a hub name of transformers such as openai/clip-vit-large-patch14, or a name of open_clip.
        backend: Where.
        layer: Layer of the patch tokens, from the end: -1 the last, -2 the one before it (IP-Adapter Plus).

    Raises:
        StudioError: The name means nothing, its weights are not here, or it has no such layer.
    """
    embedded = assets.root() / "models" / name
    folder = embedded if "/" not in name and embedded.is_dir() else Path(name).expanduser()
    try:
        tower = _build(name, folder, backend, layer)
    except (OSError, RuntimeError, ValueError) as error:
        raise StudioError(
            f"The image encoder {name!r} cannot be loaded ({str(error).splitlines()[0]}); give studio-tiny-clip, a "
            "folder of transformers or open_clip, or a name whose weights are on this machine.",
            field="encoder",
        ) from error
    placed = backend.place(tower).float()
    try:
        placed.measure()
    except (AssertionError, IndexError) as error:
        raise StudioError(
            f"The image encoder {name!r} has no layer {layer} ({error}); give -1 for the last one, -2 for the one before it.",
            field="layer",
        ) from error
    return placed


def _build(name: str, folder: Path, backend: Backend, layer: int) -> VisionTower:
    if name == TINY:
        with backend.seeded(0):
            return Transformers(name, CLIPVisionModelWithProjection(_tiny()), layer)
    if (folder / "open_clip_config.json").is_file() or name in open_clip.list_models():
        source = f"local-dir:{folder}" if folder.is_dir() else name
        tags = [] if folder.is_dir() else open_clip.list_pretrained_tags_by_model(name)
        weights = next(iter(tags), None)
        quick = quick_gelu(source, weights)
        network: Any = open_clip.create_model(
            source, pretrained=weights, require_pretrained=True, force_quick_gelu=quick
        )
        return OpenClip(name, network, layer)
    if (folder / "config.json").is_file() and "architecture" in json.loads(
        (folder / "config.json").read_text()
    ):
        network = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
        return Timm(name, network, _TIMM_SIDE if name == "efficientnet-lite0" else 0)
    if not folder.is_dir() and name.count("/") != 1:
        raise unknown(
            "image encoder", name, ["studio-tiny-clip", "efficientnet-lite0", TINY], field="encoder"
        )
    return Transformers(name, CLIPVisionModelWithProjection.from_pretrained(str(folder) if folder.is_dir() else name),
                        layer)  # fmt: skip


def _tiny() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=24,
    )


def square(picture: Image.Image, size: int) -> Float[Tensor, "3 s s"]:
    """A picture of any size and kind as a square one in [-1, 1]; 0, the middle gray, is where nothing is.

    Transparency counts as nothing: what was cut out of its background stays so.
    """
    upright = ImageOps.exif_transpose(picture)
    rgba = upright.convert("RGBA") if upright.has_transparency_data else upright.convert("RGB")
    scale = size / max(rgba.size)
    width, height = (max(1, round(side * scale)) for side in rgba.size)
    small = rgba.convert("RGBa" if rgba.mode == "RGBA" else "RGB").resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels = torch.from_numpy(np.array(small, dtype=np.float32)) / 255
    alpha = pixels[..., 3:] if pixels.shape[-1] == 4 else torch.ones_like(pixels[..., :1])
    shown = rearrange(2 * pixels[..., :3] - alpha, "h w c -> c h w")
    left, top = (size - width) // 2, (size - height) // 2
    return F.pad(shown, (left, size - width - left, top, size - height - top)).clamp(-1, 1)


def squares(pictures: Sequence[Image.Image], tower: VisionTower) -> Float[Tensor, "n 3 s s"]:
    """References as a tower wants them.

    Raises:
        StudioError: There are none.
    """
    if not pictures:
        raise StudioError(
            "There is no reference picture; give at least one, such as --reference photo.png.",
            field="reference",
        )
    return torch.stack([square(picture, tower.size) for picture in pictures]).to(tower.mean.device)

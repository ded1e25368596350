"""studio-tiny-vit: a timm VisionTransformer that names the object of a sticker scene.

Dosovitskiy et al., 2021, "An Image is Worth 16x16 Words" (arXiv 2010.11929), with patches of 8 pixels. Training
pictures also get a gray rectangle now and then (random erasing, Zhong et al., 2020, arXiv 1708.04896).
"""

import json
from pathlib import Path

import timm
import torch
from jaxtyping import Float
from timm.models import save_for_hf
from torch import Tensor, nn
from torch.nn import functional as F

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss
from studio.data.stickers import draw_scenes, names
from trainers.pretrain import config
from trainers.pretrain.autoencoder import SceneSource

ARCHITECTURE = "vit_tiny_patch16_224"
NUM_UNSEEN = 1024
UNSEEN_SEED = 30_000_001


def build_vit(width: int, depth: int, num_classes: int) -> nn.Module:
    """An untrained VisionTransformer for 64-pixel pictures."""
    return timm.create_model(
        ARCHITECTURE, img_size=64, patch_size=8, embed_dim=width, depth=depth, num_heads=width // 32,
        num_classes=num_classes,
    )  # fmt: skip


def erase(images: Float[Tensor, "b 3 h w"], share: float, rng: Rng) -> Float[Tensor, "b 3 h w"]:
    """Covers a gray square of 12 to 28 pixels in a share of the pictures."""
    numbers = rng.uniform(len(images), 4)
    side = 12 + 16 * numbers[:, 0]
    top, left = (numbers[:, place] * (images.shape[-1] - side) for place in (1, 2))
    line = torch.arange(images.shape[-1], device=images.device)
    down = (line >= top[:, None]) & (line < (top + side)[:, None])
    across = (line >= left[:, None]) & (line < (left + side)[:, None])
    covered = down[:, None, :, None] & across[:, None, None, :] & (numbers[:, 3] < share)[:, None, None, None]
    return torch.where(covered, torch.zeros_like(images), images)


class VitRecipe:
    """Learns to name the object."""

    def __init__(self, settings: config.Vit) -> None:
        self.settings = settings
        self.names = names(settings.scenes.num_concepts)

    def setup(self, backend: Backend) -> list[Group]:
        """Builds the classifier."""
        network = build_vit(self.settings.width, self.settings.depth, len(self.names))
        self.device = backend.device
        self.network = backend.place(network, trains=True)
        return [Group(name="vit", module=self.network)]

    def source(self) -> Source:
        """Scenes composed on the fly."""
        return SceneSource(self.settings.scenes)

    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Cross-entropy with labels smoothed by a tenth."""
        images = erase(batch["images"], self.settings.erased, rng)
        logits = self.network(images)
        right = (logits.argmax(1) == batch["labels"]).float().mean()
        return Loss(F.cross_entropy(logits, batch["labels"], label_smoothing=0.1), {"accuracy": right})

    def prompts(self) -> list[str]:
        """One word: there is nothing to draw, but the unseen scenes are scored."""
        return ["unseen scenes"]

    @torch.no_grad()
    def sample(self, request: Request, rng: Rng) -> Output:
        """Scores of the labels for the pictures of the request, or for a few unseen scenes."""
        del rng
        self.network.eval()
        images = self._unseen(16)[0] if request.batch is None else request.batch["images"]
        logits = self.network(images.to(self.device))
        self.network.train()
        return Output(logits=logits)

    def _unseen(self, count: int) -> tuple[Tensor, Tensor]:
        scenes = draw_scenes(self.settings.scenes, count, torch.Generator().manual_seed(UNSEEN_SEED))
        return scenes.images, scenes.concepts

    @torch.no_grad()
    def score(self) -> dict[str, float]:
        """Top-1 accuracy on unseen scenes."""
        images, labels = self._unseen(NUM_UNSEEN)
        self.network.eval()
        found = torch.cat([self.network(part.to(self.device)).argmax(1).cpu() for part in images.split(128)])
        self.network.train()
        accuracy = (found == labels).float().mean().item()
        return {"quality": accuracy, "accuracy": accuracy}

    def export(self, folder: Path) -> list[Path]:
        """Writes a folder that `timm.create_model("local-dir:...")` loads, half precision."""
        target = folder / "studio-tiny-vit"
        copy = build_vit(self.settings.width, self.settings.depth, len(self.names))
        copy.load_state_dict(self.network.state_dict())
        arguments = {
            "img_size": 64, "patch_size": 8, "embed_dim": self.settings.width, "depth": self.settings.depth,
            "num_heads": self.settings.width // 32,
        }  # fmt: skip
        data = {
            "input_size": (3, 64, 64),
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
        }
        save_for_hf(
            copy.half(), target, model_config={"label_names": self.names}, model_args=arguments, data_config=data,
            safe_serialization=True,
        )  # fmt: skip
        (folder / "scores.json").write_text(json.dumps(self.score(), indent=2) + "\n", "utf-8")
        return [target, folder / "scores.json"]

"""studio-tiny-clip: image and text towers in the open_clip format.

Radford et al., 2021, "Learning Transferable Visual Models From Natural Language Supervision" (arXiv 2103.00020).
Departure: plain batches teach the background alone, since it tells most pictures apart. So most batches show one
background and each object at most once, and every second one of their captions does not name the background.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from einops import repeat
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

from studio.backend.core import Backend
from studio.backend.rng import Rng, mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss
from studio.data.sticker_captions import with_article
from studio.data.sticker_config import Stickers
from studio.data.stickers import compose, draw_scenes, names, plan_scenes
from studio.errors import StudioError
from trainers.pretrain import config
from trainers.pretrain.latents import tokenize
from trainers.pretrain.tokens import LENGTH, VOCABULARY, build_tokenizer
from trainers.pretrain.vit import NUM_UNSEEN, UNSEEN_SEED

WIDTH = 192
_HIGHEST_SCALE = math.log(100)
_WITHOUT_BACKGROUND = 0.9
"""Caption templates from this number on do not name the background."""


def model_config(width: int = 128, depth: int = 6) -> dict[str, Any]:
    """The architecture, as open_clip writes it."""
    return {
        "embed_dim": WIDTH,
        "vision_cfg": {
            "image_size": 64, "layers": depth, "width": width, "head_width": 32, "patch_size": 8,
            "no_ln_pre": True, "norm_kwargs": {"eps": 1e-6},
        },
        "text_cfg": {
            "context_length": LENGTH, "vocab_size": VOCABULARY, "hf_tokenizer_name": "studio-tiny-clip",
            "width": WIDTH, "heads": 4, "layers": 2,
        },
    }  # fmt: skip


@torch.no_grad()
def start_image_tower(tower: Any, vit: Any) -> None:
    """Gives open_clip's image tower the weights of a timm VisionTransformer; both then give the same features.

    open_clip's patch embedding has no bias, so it is added to the positions of the patches.
    """
    tower.conv1.weight.copy_(vit.patch_embed.proj.weight)
    tower.class_embedding.copy_(vit.cls_token[0, 0])
    tower.positional_embedding.copy_(vit.pos_embed[0])
    tower.positional_embedding[1:] += vit.patch_embed.proj.bias
    tower.ln_post.load_state_dict(vit.norm.state_dict())
    for block, source in zip(tower.transformer.resblocks, vit.blocks, strict=True):
        block.ln_1.load_state_dict(source.norm1.state_dict())
        block.ln_2.load_state_dict(source.norm2.state_dict())
        block.attn.in_proj_weight.copy_(source.attn.qkv.weight)
        block.attn.in_proj_bias.copy_(source.attn.qkv.bias)
        block.attn.out_proj.load_state_dict(source.attn.proj.state_dict())
        block.mlp.c_fc.load_state_dict(source.mlp.fc1.state_dict())
        block.mlp.c_proj.load_state_dict(source.mlp.fc2.state_dict())


class HardSource:
    """Scenes of which most batches share one background; batch `n` is a function of (seed, n)."""

    def __init__(self, scenes: Stickers, tokenizer: CLIPTokenizer, hard_share: float) -> None:
        self.scenes, self.tokenizer, self.hard_share = scenes, tokenizer, hard_share

    def __len__(self) -> int:
        return 1 << 20

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches from step `first` on.

        Raises:
            StudioError: A batch has more pictures than there are concepts.
        """
        if shard.total > self.scenes.num_concepts:
            raise StudioError(
                f"loop.batch_size {shard.total} is more than the {self.scenes.num_concepts} concepts, but a hard batch "
                f"shows each at most once; choose {self.scenes.num_concepts} or less.",
                field="loop.batch_size",
            )
        step = first
        while True:
            rng = torch.Generator().manual_seed(mix(seed, step, len("clip")))
            drawn = self._draw(shard.total, rng, hard=bool(torch.rand(1, generator=rng) < self.hard_share))
            rows = slice(shard.start, shard.stop)
            yield {"images": drawn.images[rows], "tokens": tokenize(self.tokenizer, drawn.captions[rows])}
            step += 1

    def _draw(self, count: int, rng: torch.Generator, *, hard: bool) -> Any:
        plan = plan_scenes(self.scenes, count, rng)
        if not hard:
            return compose(plan, self.scenes)
        concepts = torch.randperm(self.scenes.num_concepts, generator=rng)[:count]
        numbers = plan.numbers.clone()
        numbers[::2, 17] = _WITHOUT_BACKGROUND + (1 - _WITHOUT_BACKGROUND) * numbers[::2, 17]
        same = {
            "kinds": repeat(plan.kinds[:1], "1 -> b", b=count),
            "colors": repeat(plan.colors[:1], "1 k -> b k", b=count),
        }
        return compose(replace(plan, concepts=concepts, numbers=numbers, **same), self.scenes)


class ClipRecipe:
    """Learns to match pictures and captions."""

    def __init__(self, settings: config.Clip) -> None:
        self.settings = settings

    def setup(self, backend: Backend) -> list[Group]:
        """Builds both towers; the image tower starts from the classifier."""
        self.architecture = model_config()
        network = open_clip.CLIP(**self.architecture)
        if self.settings.image_tower:
            start_image_tower(
                network.visual, timm.create_model(f"local-dir:{self.settings.image_tower}", pretrained=True)
            )
        self.tokenizer = build_tokenizer()
        self.device = backend.device
        self.network = backend.place(network, trains=True)
        return [Group(name="clip", module=self.network)]

    def source(self) -> Source:
        """Mostly batches with one background."""
        return HardSource(self.settings.scenes, self.tokenizer, self.settings.hard_share)

    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Symmetric cross-entropy over the batch."""
        del rng
        images = self.network.encode_image(batch["images"], normalize=True)
        texts = self.network.encode_text(batch["tokens"], normalize=True)
        logits = self.network.logit_scale.clamp(max=_HIGHEST_SCALE).exp() * images @ texts.mT
        target = torch.arange(len(logits), device=logits.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)) / 2
        return Loss(loss, {"accuracy": (logits.argmax(1) == target).float().mean()})

    def prompts(self) -> list[str]:
        """One word: there is nothing to draw, but the unseen scenes are scored."""
        return ["unseen scenes"]

    @torch.no_grad()
    def sample(self, request: Request, rng: Rng) -> Output:
        """Similarities of the request's pictures (or a few unseen scenes) and the object names."""
        del rng
        images = self._unseen(16).images if request.batch is None else request.batch["images"]
        return Output(logits=self._name_logits(images))

    def _unseen(self, count: int) -> Any:
        return draw_scenes(self.settings.scenes, count, torch.Generator().manual_seed(UNSEEN_SEED))

    def _name_logits(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n"]:
        captions = [f"a sticker of {with_article(name)}" for name in names(self.settings.scenes.num_concepts)]
        texts = self._embed(captions)
        parts = [
            self.network.encode_image(part.to(self.device), normalize=True) for part in images.split(128)
        ]
        return torch.cat(parts) @ texts.mT

    def _embed(self, captions: list[str]) -> Tensor:
        return self.network.encode_text(tokenize(self.tokenizer, captions).to(self.device), normalize=True)

    @torch.no_grad()
    def score(self) -> dict[str, float]:
        """Zero-shot accuracy over the object names, and retrieval of the caption among those of 256 scenes."""
        scenes = self._unseen(NUM_UNSEEN)
        found = self._name_logits(scenes.images)
        right = (found.argmax(1).cpu() == scenes.concepts).float().mean().item()
        near = (found.topk(5).indices.cpu() == scenes.concepts[:, None]).any(1).float().mean().item()
        images = self.network.encode_image(scenes.images[:256].to(self.device), normalize=True)
        texts = self._embed(scenes.captions[:256])
        retrieved = (
            ((images @ texts.mT).argmax(1) == torch.arange(256, device=self.device)).float().mean().item()
        )
        return {"quality": right, "zero_shot_top1": right, "zero_shot_top5": near, "retrieval_256": retrieved}

    def export(self, folder: Path) -> list[Path]:
        """Writes a folder that `open_clip.create_model("local-dir:...")` loads, half precision."""
        target = folder / "studio-tiny-clip"
        target.mkdir(parents=True, exist_ok=True)
        tensors = {
            key: value.detach().half().cpu().contiguous() for key, value in self.network.state_dict().items()
        }
        save_file(tensors, target / "open_clip_model.safetensors")
        preprocess = {
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        }
        described = {"model_cfg": self.architecture, "preprocess_cfg": preprocess}
        (target / "open_clip_config.json").write_text(json.dumps(described, indent=2) + "\n", "utf-8")
        self.tokenizer.save_pretrained(target)
        (folder / "scores.json").write_text(json.dumps(self.score(), indent=2) + "\n", "utf-8")
        return [target, folder / "scores.json"]

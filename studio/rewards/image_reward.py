"""ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation.

Xu, Liu, Wu, Tong, Li, Ding, Tang, Dong, NeurIPS 2023, arXiv 2304.05977.

BLIP's text encoder reads the prompt and, by cross-attention, the picture; its first token goes through five linear
layers. The published file has the names of BLIP's own code; they are turned into those of transformers' BLIP, so that
the package of the paper (made for transformers 4) is not needed. Axes: `b` pictures, `H W` image.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoTokenizer, BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from studio.errors import StudioError
from studio.rewards.config import ImageReward
from studio.rewards.preference import normalized, weights_file

FILE = ("THUDM/ImageReward", "ImageReward.pt")
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the raw score over the paper's data."""
MAX_TOKENS = 35
WIDTHS = (1024, 128, 64, 16, 1)
"""Layers of the head; the dropout between them does nothing when it judges."""
HEAD = (0, 2, 4, 6, 7)
"""Their numbers in the published file."""
RENAMED = (
    (r"^blip\.visual_encoder\.", "vision."),
    (r"^blip\.text_encoder\.", "text."),
    (r"^mlp\.layers\.", "head."),
    (r"^vision\.cls_token$", "vision.embeddings.class_embedding"),
    (r"^vision\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"^vision\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^vision\.blocks\.", "vision.encoder.layers."),
    (r"^vision\.norm\.", "vision.post_layernorm."),
    (r"\.attn\.qkv\.", ".self_attn.qkv."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
    (r"\.norm1\.", ".layer_norm1."),
    (r"\.norm2\.", ".layer_norm2."),
)
"""BLIP's own names to transformers'; those inside its text encoder are the same."""
NOT_READ = (r"^blip\.(vision_proj|text_proj)\.", r"position_ids$")
"""What the score does not use."""


class Judge(nn.Module):
    """BLIP's two encoders and the head."""

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig) -> None:
        super().__init__()
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        self.head = nn.Sequential()
        widths = itertools.pairwise((text.hidden_size, *WIDTHS))
        for number, (inner, outer) in zip(HEAD, widths, strict=True):
            self.head.add_module(str(number), nn.Linear(inner, outer))

    def forward(self, pixels: Float[Tensor, "b 3 H W"], words: Mapping[str, Tensor]) -> Float[Tensor, " b"]:
        """Standardized scores of normalized pictures."""
        seen = self.vision(pixel_values=pixels).last_hidden_state
        read = self.text(
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
        )
        return (self.head(read.last_hidden_state[:, 0])[:, 0] - MEAN) / STD


class ImageRewardReward:
    """Scores of about N(0, 1)."""

    def __init__(self, judge: Judge, tokenizer: Any) -> None:
        self._judge, self._tokenizer = judge, tokenizer
        self._size = int(judge.vision.config.image_size)  # pyright: ignore[reportArgumentType]  # one number in every ViT

    def __call__(self, images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        """More where people would rather choose the picture for the prompt."""
        device = next(self._judge.parameters()).device
        words = self._tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(device)
        return self._judge(normalized(images.to(device), self._size), words)


def renamed(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors under the names of `Judge`."""
    found: dict[str, Tensor] = {}
    for key, value in values.items():
        if any(re.search(pattern, key) for pattern in NOT_READ):
            continue
        name = key
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name) if not name.startswith("text.") else name
        found[name] = value
    return found


def sizes(values: Mapping[str, Tensor]) -> tuple[BlipVisionConfig, BlipTextConfig]:
    """The configurations that fit renamed tensors; a head of attention is 64 wide in both of BLIP's encoders."""
    patch = values["vision.embeddings.patch_embedding.weight"]
    grid = round((values["vision.embeddings.position_embedding"].shape[1] - 1) ** 0.5)
    words = values["text.embeddings.word_embeddings.weight"]
    vision = BlipVisionConfig(
        hidden_size=patch.shape[0],
        intermediate_size=values["vision.encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_count(values, r"^vision\.encoder\.layers\.(\d+)\."),
        num_attention_heads=patch.shape[0] // 64,
        image_size=grid * patch.shape[-1],
        patch_size=patch.shape[-1],
        layer_norm_eps=1e-6,
    )
    text = BlipTextConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        encoder_hidden_size=patch.shape[0],
        intermediate_size=values["text.encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_count(values, r"^text\.encoder\.layer\.(\d+)\."),
        num_attention_heads=words.shape[1] // 64,
        max_position_embeddings=values["text.embeddings.position_embeddings.weight"].shape[0],
        is_decoder=True,  # gives the layers their cross-attention; the scores are read without a causal mask
        use_cache=False,
    )
    return vision, text


def load_image_reward(settings: ImageReward, device: torch.device | str) -> ImageRewardReward:
    """ImageReward from its published file.

    Raises:
        StudioError: The file or the tokenizer is not there, or the file holds something else.
    """
    file = weights_file(settings.weights, FILE)
    values = renamed(torch.load(file, map_location="cpu", weights_only=True))
    try:
        judge = Judge(*sizes(values))
        judge.load_state_dict(values)
    except (KeyError, RuntimeError) as error:
        raise StudioError(
            f"{str(file)!r} does not hold ImageReward ({str(error).splitlines()[0]}); give ImageReward.pt.",
            field="weights",
        ) from error
    return ImageRewardReward(judge.to(device).float().eval().requires_grad_(False), _tokenizer(settings))


def _tokenizer(settings: ImageReward) -> Any:
    try:
        return AutoTokenizer.from_pretrained(settings.tokenizer)
    except (OSError, ValueError) as error:
        raise StudioError(
            f"BERT's tokenizer {settings.tokenizer!r} cannot be read ({str(error).splitlines()[0]}); give a folder, "
            "or go online once.",
            field="tokenizer",
        ) from error


def _count(values: Mapping[str, Tensor], pattern: str) -> int:
    numbers = [int(found[1]) for key in values if (found := re.match(pattern, key))]
    return max(numbers) + 1

"""CLIP and SigLIP of transformers as dual encoders."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
)
from typing_extensions import override

from studio.errors import StudioError
from studio.models.clip_open import missing_weights
from studio.models.dual import DualEncoder, Tower
from studio.models.tokenizers import tiny_clip_tokenizer, tiny_t5_tokenizer

KINDS = {"clip": CLIPModel, "siglip": SiglipModel}
"""By the `model_type` of config.json."""
_SCALE = ("logit_scale", "logit_bias")
_TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_TINY_LENGTH = 32


class TransformersClip(DualEncoder):
    """A CLIPModel or SiglipModel with its tokenizer."""

    def __init__(
        self, network: Any, tokenizer: Any, name: str, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__(network, name, mean, std)
        self.tokenizer = tokenizer
        self.size = int(network.config.vision_config.image_size)
        self.context_length = int(network.config.text_config.max_position_embeddings)

    @override
    def encode_pixels(self, pixels: Float[Tensor, "b c s s"]) -> Float[Tensor, "b d"]:
        return self.network.get_image_features(pixel_values=pixels).pooler_output

    @override
    def encode_tokens(self, tokens: Int[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        # No mask: CLIP is causal and reads its end token, SigLIP was trained to see the padding.
        return self.network.get_text_features(input_ids=tokens).pooler_output

    @override
    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "n l"]:
        made = self.tokenizer(
            [text.lower() for text in texts] if isinstance(self.network, SiglipModel) else list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        )
        return made.input_ids

    @property
    @override
    def end_token(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    @override
    def has_start_token(self) -> bool:
        start = self.tokenizer.bos_token_id
        return start is not None and int(self.tokenize(["a"])[0, 0]) == start

    @property
    @override
    def token_embedding(self) -> nn.Embedding:
        return self.network.text_model.embeddings.token_embedding

    @override
    def blocks(self, tower: Tower) -> list[nn.Module]:
        model = self.network.vision_model if tower == "image" else self.network.text_model
        return list(model.encoder.layers)

    @override
    def entry(self) -> nn.Module:
        parts = dict(self.network.vision_model.named_children())
        return parts.get("pre_layrnorm", self.blocks("image")[0])  # transformers' own spelling

    @property
    @override
    def num_prefix(self) -> int:
        return 1 if isinstance(self.network, CLIPModel) else 0

    @override
    def tower_of(self, parameter: str) -> Tower:
        if parameter.startswith(_SCALE):
            return "scale"
        return "image" if parameter.startswith(("vision_model.", "visual_projection.")) else "text"

    @override
    def add_bias(self, value: float) -> None:
        if not isinstance(self.network, SiglipModel):
            raise StudioError(
                f"The sigmoid loss needs a bias, which a transformers CLIP such as {self.name!r} cannot keep; take a SigLIP "
                "or an open_clip model, or --objective softmax.",
                field="objective",
            )

    @override
    def save(self, network: nn.Module, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        saved: Any = network
        saved.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
        processor = "CLIPImageProcessor" if isinstance(self.network, CLIPModel) else "SiglipImageProcessor"
        settings = {"image_mean": self.mean.flatten().tolist(), "image_std": self.std.flatten().tolist()}
        settings |= {"image_processor_type": processor, "size": {"height": self.size, "width": self.size}}
        if processor == "CLIPImageProcessor":
            settings |= {
                "size": {"shortest_edge": self.size},
                "crop_size": {"height": self.size, "width": self.size},
            }
        (folder / "preprocessor_config.json").write_text(
            json.dumps(settings, indent=2) + "\n", encoding="utf-8"
        )
        return [folder / "model.safetensors", folder / "config.json"]


def load_transformers(name: str, kind: str) -> TransformersClip:
    """A transformers CLIP or SigLIP from a folder or the hub, on the CPU in fp32.

    Raises:
        StudioError: The weights, the tokenizer or the preprocessing are not there.
    """
    model: Any = KINDS[kind]
    try:
        network = model.from_pretrained(name, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(name)
        processor: Any = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise missing_weights(name, error) from error
    return TransformersClip(network.float(), tokenizer, name, processor.image_mean, processor.image_std)


def tiny_transformers(kind: str) -> TransformersClip:
    """A random tiny CLIP or SigLIP; weights from torch's global generator."""
    vision = {**_TINY, "image_size": 32, "patch_size": 16}
    if kind == "clip":
        tokenizer: Any = tiny_clip_tokenizer()
        special = {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
    elif kind == "siglip":
        tokenizer = tiny_t5_tokenizer()
        special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    else:
        raise StudioError(
            f"There is no tiny dual encoder {kind!r}; choose tiny:clip or tiny:siglip.", field="model"
        )
    text = {**_TINY, "vocab_size": len(tokenizer), "max_position_embeddings": _TINY_LENGTH, **special}
    if kind == "clip":
        network: Any = CLIPModel(
            CLIPConfig(text_config=text, vision_config={**vision, "projection_dim": 32}, projection_dim=32)
        )
    else:
        network = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    return TransformersClip(network, tokenizer, f"tiny:{kind}", [0.5] * 3, [0.5] * 3)

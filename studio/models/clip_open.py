"""open_clip models as dual encoders: CLIP, SigLIP and what else open_clip reads."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float, Int
from open_clip.transformer import Transformer
from safetensors.torch import save_file
from torch import Tensor, nn
from typing_extensions import override

from studio.errors import StudioError
from studio.models import split_attention
from studio.models.dual import DualEncoder, Tower, no_blocks

Tokenizer = Callable[[list[str]], Tensor]
_SCALE = ("logit_scale", "logit_bias")


class OpenClip(DualEncoder):
    """A CLIP or CustomTextCLIP of open_clip.

    Attributes:
        description: What `open_clip_config.json` says.
        files: Folder with the tokenizer's files; None for open_clip's own tokenizer.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Any,
        name: str,
        description: dict[str, Any],
        files: Path | None = None,
    ) -> None:
        visual: Any = network.visual
        super().__init__(network, name, visual.image_mean, visual.image_std)
        self.tokenizer, self.description, self.files = tokenizer, description, files
        size = visual.image_size
        self.size = int(size[0] if isinstance(size, tuple) else size)
        self.context_length = int(self.network.context_length)

    @override
    def encode_pixels(self, pixels: Float[Tensor, "b c s s"]) -> Float[Tensor, "b d"]:
        return self.network.encode_image(pixels)

    @override
    def encode_tokens(self, tokens: Int[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        return self.network.encode_text(tokens)

    @override
    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "n l"]:
        return self.tokenizer(list(texts))

    @property
    def _text(self) -> Any:
        """The text tower: a module of its own, or spread over the network."""
        parts = dict(self.network.named_children())
        return parts.get("text", self.network)

    @property
    @override
    def end_token(self) -> int:
        if isinstance(self.tokenizer, open_clip.SimpleTokenizer):
            return self.tokenizer.eot_token_id
        return int(self.tokenizer.tokenizer.eos_token_id)

    @property
    @override
    def has_start_token(self) -> bool:
        if isinstance(self.tokenizer, open_clip.SimpleTokenizer):
            return True
        start = self.tokenizer.tokenizer.bos_token_id
        return start is not None and int(self.tokenize(["a"])[0, 0]) == start

    @property
    @override
    def token_embedding(self) -> nn.Embedding:
        found = dict(self._text.named_children()).get("token_embedding")
        if found is None:
            raise no_blocks(self.name, "text")
        return found

    @override
    def blocks(self, tower: Tower) -> list[nn.Module]:
        parts = dict((self.network.visual if tower == "image" else self._text).named_children())
        if isinstance(inside := parts.get("transformer"), Transformer):
            return list(inside.resblocks)
        trunk = dict(parts["trunk"].named_children()) if "trunk" in parts else {}
        if "blocks" in trunk:
            return list(trunk["blocks"])
        raise no_blocks(self.name, tower)

    @override
    def entry(self) -> nn.Module:
        visual = self.network.visual
        parts = {
            **dict(visual.named_children()),
            **dict(getattr(visual, "trunk", nn.Module()).named_children()),
        }
        return parts.get("ln_pre", parts.get("norm_pre", self.blocks("image")[0]))

    @override
    def open_attention(self) -> None:
        split_attention.split(self.network)

    @property
    @override
    def num_prefix(self) -> int:
        visual = self.network.visual
        return int(visual.trunk.num_prefix_tokens) if "trunk" in dict(visual.named_children()) else 1

    @override
    def tower_of(self, parameter: str) -> Tower:
        if parameter.startswith(_SCALE):
            return "scale"
        return "image" if parameter.startswith("visual.") else "text"

    @override
    def add_bias(self, value: float) -> None:
        if self.network.logit_bias is None:
            self.network.logit_bias = nn.Parameter(torch.full((), value))
            model = {**self.description["model_cfg"], "init_logit_bias": value}
            self.description = {**self.description, "model_cfg": model}

    @override
    def save(self, network: nn.Module, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        state = split_attention.joined(network).state_dict()
        tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
        save_file(tensors, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
        (folder / "open_clip_config.json").write_text(
            json.dumps(self.description, indent=2) + "\n", encoding="utf-8"
        )
        if self.files:
            for file in sorted(self.files.glob("*token*")) + sorted(self.files.glob("vocab*")):
                shutil.copyfile(file, folder / file.name)
        elif not isinstance(self.tokenizer, open_clip.SimpleTokenizer):
            self.tokenizer.save_pretrained(folder)
        return [folder / "open_clip_model.safetensors", folder / "open_clip_config.json"]


def load_open_clip(name: str, folder: Path | None, pretrained: str = "") -> OpenClip:
    """An open_clip model from a folder, or by name with a tag or file of weights, on the CPU in fp32.

    Raises:
        StudioError: The weights are not there.
    """
    source = f"local-dir:{folder}" if folder else name
    tags = [] if folder or ":" in name else open_clip.list_pretrained_tags_by_model(name)
    weights = None if folder else (pretrained or next(iter(tags), None))
    quick = quick_gelu(source, weights)
    try:
        network: Any = open_clip.create_model(
            source, pretrained=weights, require_pretrained=True, force_quick_gelu=quick
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise missing_weights(name, error) from error
    if folder:
        described = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    else:
        model = {**(open_clip.get_model_config(name) or {}), **({"quick_gelu": True} if quick else {})}
        described = {"model_cfg": model, "preprocess_cfg": preprocessing(network)}
    shown = f"{name} {weights}" if weights else name
    return OpenClip(network.float(), open_clip.get_tokenizer(source), shown, described, folder)


def quick_gelu(name: str, weights: str | None) -> bool:
    """Whether weights were trained with QuickGELU, as their tag says: open_clip warns of it and takes the model's own GELU."""
    tagged = open_clip.get_pretrained_cfg(name, weights) if weights and ":" not in name else {}
    return bool(tagged.get("quick_gelu"))


def preprocessing(network: Any) -> dict[str, Any]:
    """How pictures are prepared, as open_clip writes it."""
    found = dict(network.visual.preprocess_cfg)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def missing_weights(name: str, error: Exception) -> StudioError:
    """What to say when weights cannot be read."""
    return StudioError(
        f"The weights of {name!r} are not on this machine and cannot be fetched "
        f"({str(error).splitlines()[0]}); give a local folder, or go online once.",
        field="model",
    )


def tiny_open_clip() -> OpenClip:
    """A random tiny model with open_clip's own tokenizer; weights from torch's global generator."""
    described: dict[str, Any] = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    network: Any = open_clip.CLIP(**described)
    open_clip.set_model_preprocess_cfg(network, {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3})
    with torch.no_grad():
        network.logit_scale.fill_(3.0)
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    return OpenClip(
        network,
        tokenizer,
        "tiny:open-clip",
        {"model_cfg": described, "preprocess_cfg": preprocessing(network)},
    )

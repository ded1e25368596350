"""Dual encoders (CLIP, SigLIP): pictures and texts in one space, behind a few verbs.

Pictures are in [-1, 1] at every border here and of any size; the model's own normalization is inside. Axes: `b`
pictures, `n` texts or tokens of a text, `d` width of the common space, `w` width of a tower, `c h w` picture.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from studio.errors import StudioError
from studio.models.pixels import fit

Tower = Literal["image", "text", "scale"]
"""Which part of a dual encoder a weight belongs to; the scale is the temperature and the bias of the logits."""


@dataclass(frozen=True)
class States:
    """What a tower knows of each token: a patch of a picture or a piece of a text; `mask` is 1 for real tokens."""

    tokens: Float[Tensor, "b n w"]
    mask: Bool[Tensor, "b n"]


class DualEncoder(nn.Module, ABC):
    """Two towers with one space.

    Attributes:
        network: The open_clip or transformers model; it alone has weights.
        size: Side of the pictures in pixels.
        context_length: Tokens of a text, the special ones included.
    """

    mean: Tensor
    std: Tensor
    network: Any
    size: int
    context_length: int

    def __init__(self, network: nn.Module, name: str, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network, self.name = network, name
        for key, value in (("mean", mean), ("std", std)):
            self.register_buffer(key, rearrange(torch.tensor(value), "c -> c 1 1"), persistent=False)

    # ---------------------------------------------------------------- what differs between libraries

    @abstractmethod
    def encode_pixels(self, pixels: Float[Tensor, "b c s s"]) -> Float[Tensor, "b d"]:
        """Features of normalized pictures, not of unit length."""

    @abstractmethod
    def encode_tokens(self, tokens: Int[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        """Features of tokenized texts, not of unit length."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "n l"]:
        """Token ids, padded to `context_length`, on the CPU."""

    @property
    @abstractmethod
    def end_token(self) -> int:
        """The token after a text's last word."""

    @property
    @abstractmethod
    def has_start_token(self) -> bool:
        """Whether a token stands before a text's first word."""

    @property
    @abstractmethod
    def token_embedding(self) -> nn.Embedding:
        """The table of the text tower's input vectors."""

    @abstractmethod
    def blocks(self, tower: Tower) -> list[nn.Module]:
        """The transformer blocks of a tower, input first.

        Raises:
            StudioError: The tower is no plain transformer.
        """

    def entry(self) -> nn.Module:
        """The first module of the image tower that is called on all tokens: a norm before the blocks, or the first block."""
        return self.blocks("image")[0]

    def open_attention(self) -> None:
        """Have attention made of linear layers that adapters can sit on; nothing where it is so."""

    @property
    @abstractmethod
    def num_prefix(self) -> int:
        """Tokens of the image tower in front of the patches (the class token)."""

    @abstractmethod
    def tower_of(self, parameter: str) -> Tower:
        """The part that a parameter of `network` belongs to."""

    @abstractmethod
    def save(self, network: nn.Module, folder: Path) -> list[Path]:
        """Write a network of this architecture, with its tokenizer, as a folder that `load_clip` reads."""

    @abstractmethod
    def add_bias(self, value: float) -> None:
        """Give the logits a trainable bias, as the sigmoid loss needs it; nothing if there is one.

        Raises:
            StudioError: The library's model has no place for one.
        """

    # ---------------------------------------------------------------- the verbs

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.mean.device

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """Factor on cosines, as it is.

        Training holds CLIP's at 100 after a step (section 2.5), not here, where the bound would end its gradient; SigLIP's
        has no bound.
        """
        return self.network.logit_scale.exp().squeeze()

    @property
    def has_bias(self) -> bool:
        """Whether the logits have a bias: the model was pretrained with the sigmoid loss."""
        return any(name == "logit_bias" for name, _ in self.network.named_parameters())

    @property
    def logit_bias(self) -> Float[Tensor, ""]:
        """What is added to scaled cosines: SigLIP's bias; 0 where the model has none."""
        bias = dict(self.network.named_parameters()).get("logit_bias")
        return torch.zeros((), device=self.device) if bias is None else bias.squeeze()

    def pixels(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c s s"]:
        """What the image tower itself sees of pictures in [-1, 1]."""
        return ((fit(images, self.size) + 1) / 2 - self.mean) / self.std

    def images(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Unit-length features of pictures in [-1, 1]."""
        return F.normalize(self.encode_pixels(self.pixels(images)), dim=-1)

    def tokens(self, texts: Sequence[str]) -> Int[Tensor, "n l"]:
        """Token ids on the model's device."""
        return self.tokenize(texts).to(self.device)

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit-length features of texts."""
        return F.normalize(self.encode_tokens(self.tokens(texts)), dim=-1)

    def logits(self, images: Float[Tensor, "b d"], texts: Float[Tensor, "n d"]) -> Float[Tensor, "b n"]:
        """Scaled cosines of unit features, and the bias where the model has one."""
        return self.logit_scale * images @ texts.mT + self.logit_bias

    def image_states(self, images: Float[Tensor, "b c h w"], layer: int = -1) -> States:
        """States of the patches behind a block (-1 is the last), without the class token."""
        with _kept(self.blocks("image")[layer]) as kept:
            self.encode_pixels(self.pixels(images))
        tokens = kept[0][:, self.num_prefix :]
        return States(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def text_states(self, texts: Sequence[str], layer: int = -1) -> States:
        """States of the tokens behind a block (-1 is the last); the mask leaves out start, end and padding."""
        ids = self.tokens(texts)
        with _kept(self.blocks("text")[layer]) as kept:
            self.encode_tokens(ids)
        return States(kept[0], self.words_mask(ids))

    def words_mask(self, tokens: Int[Tensor, "n l"]) -> Bool[Tensor, "n l"]:
        """Which tokens are words: neither start, nor end, nor padding."""
        before_end = (tokens == self.end_token).cumsum(1) == 0
        if self.has_start_token:
            before_end[:, 0] = False
        return before_end

    def width(self, tower: Tower) -> int:
        """Width of a tower."""
        if tower == "text":
            return self.token_embedding.embedding_dim
        norms = [m for m in self.blocks("image")[0].modules() if isinstance(m, nn.LayerNorm)]
        return norms[0].normalized_shape[0]

    def data_config(self) -> dict[str, Any]:
        """How labelled pictures are prepared, in timm's words (`studio.data.labelled`)."""
        return {
            "input_size": (3, self.size, self.size),
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
        }

    def parameters_of(self, tower: Tower) -> frozenset[str]:
        """Names of a tower's parameters in this module: `network.` and so on."""
        return frozenset(
            f"network.{name}" for name, _ in self.network.named_parameters() if self.tower_of(name) == tower
        )


@contextmanager
def _kept(module: nn.Module) -> Iterator[list[Tensor]]:
    """What a module gives while inside."""
    kept: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        yield kept
    finally:
        handle.remove()


def no_blocks(name: str, tower: Tower) -> StudioError:
    """What to say when a tower has no transformer blocks that could be reached."""
    return StudioError(
        f"The {tower} tower of {name!r} is no plain transformer, so its tokens cannot be read or prompted; choose a "
        "ViT-* model of open_clip or a transformers CLIP or SigLIP.",
        field="model",
    )

"""A small captioner: what a frozen CLIP sees of a picture is the prefix of a small language model.

    ClipCap    Mokady, Hertz, Bermano, 2021, arXiv 2111.09734: CLIP, a mapper, GPT-2
    LLaVA      Liu et al., 2023, arXiv 2304.08485: the patches of the layer before the last, not the pooled feature

Departure from ClipCap: the prefix is a grid of patches, since one pooled feature hardly tells where things are. Axes:
`b` pictures, `n` tokens of the prefix, `l` tokens of a caption, `v` vocabulary, `k` width of the image tower, `d` of the
language model, `c h w` picture in [-1, 1].
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
)

from studio import assets
from studio.errors import StudioError
from studio.models.clip import load_clip
from studio.models.dual import DualEncoder

EMBEDDED = "captioner-tiny"
NEW = "new:"
WEIGHTS, DESCRIPTION = "captioner.safetensors", "captioner.json"
LAYER = -2
"""Block of the image tower whose patches are read (LLaVA: the one before the last)."""
MAX_TOKENS = 40
"""Longest caption (DiscriTune: 40 tokens)."""
FRESH = {"n_embd": 128, "n_layer": 4, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
"""A language model of the embedded captioner's size; no dropout, which would make a policy another one than wrote."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a captioner is made of: the CLIP by name, the side of its grid of patches, the language model's config."""

    clip: str
    decoder: dict[str, Any]
    grid: int = 4


class Writer(nn.Module):
    """The part that is trained: the bridge from patches to the language model, and the language model."""

    def __init__(self, vision_width: int, decoder: GPT2LMHeadModel) -> None:
        super().__init__()
        width = decoder.config.n_embd
        self.bridge = nn.Sequential(
            nn.LayerNorm(vision_width), nn.Linear(vision_width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.decoder: Any = decoder

    def embed(self, patches: Float[Tensor, "b n k"], tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b m d"]:
        """What the language model reads: the prefix, then tokens."""
        return torch.cat([self.bridge(patches), self.decoder.transformer.wte(tokens)], 1)

    def forward(
        self, patches: Float[Tensor, "b n k"], tokens: Int[Tensor, "b l"], start: int
    ) -> Float[Tensor, "b l v"]:
        """Logits of each token of a caption, given the picture and the tokens before it."""
        before = torch.cat([torch.full_like(tokens[:, :1], start), tokens[:, :-1]], 1)
        return self.decoder(inputs_embeds=self.embed(patches, before)).logits[:, patches.shape[1] :]


@dataclass(frozen=True)
class Captioner:
    """A frozen CLIP, the writer and its tokenizer."""

    clip: DualEncoder
    writer: Writer
    tokenizer: PreTrainedTokenizerBase
    shape: Shape

    @property
    def start(self) -> int:
        """The token before a caption."""
        return int(self.tokenizer.bos_token_id)  # pyright: ignore[reportArgumentType]  # checked when loaded

    @property
    def end(self) -> int:
        """The token after a caption, which also pads."""
        return int(self.tokenizer.eos_token_id)  # pyright: ignore[reportArgumentType]  # checked when loaded

    @torch.no_grad()
    def see(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n k"]:
        """Patches of pictures, averaged to a grid."""
        tokens = self.clip.image_states(images.to(self.clip.mean), LAYER).tokens.float()
        side = int(tokens.shape[1] ** 0.5)
        patches = rearrange(tokens, "b (h w) d -> b d h w", h=side)
        return rearrange(F.adaptive_avg_pool2d(patches, self.shape.grid), "b d h w -> b (h w) d")

    def encode(self, captions: Sequence[str]) -> tuple[Int[Tensor, "b l"], Bool[Tensor, "b l"]]:
        """Tokens of captions with their end, and which of them count; longer ones lose their rest."""
        rows = [
            self.tokenizer(text, add_special_tokens=False)["input_ids"][: MAX_TOKENS - 1] for text in captions
        ]
        tokens = nn.utils.rnn.pad_sequence(
            [torch.tensor([*row, self.end]) for row in rows], batch_first=True, padding_value=self.end
        )
        lengths = torch.tensor([len(row) + 1 for row in rows])
        device = self.clip.device
        return tokens.to(device), (torch.arange(tokens.shape[1]) < lengths[:, None]).to(device)

    def mask(self, tokens: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """Which tokens of written captions count: all up to the first end."""
        ended = (tokens == self.end).cumsum(1)
        return (ended == 0) | ((ended == 1) & (tokens == self.end))

    @torch.no_grad()
    def write(
        self,
        patches: Float[Tensor, "b n k"],
        *,
        sample: bool = False,
        beams: int = 1,
        max_tokens: int = MAX_TOKENS,
    ) -> Int[Tensor, "b l"]:
        """Captions as tokens, padded with the end: the likeliest words, or drawn from torch's global generator."""
        start = torch.full((len(patches), 1), self.start, device=patches.device)
        settings = GenerationConfig(
            max_new_tokens=max_tokens, num_beams=beams, do_sample=sample, bos_token_id=self.start,
            eos_token_id=self.end, pad_token_id=self.end, **({"top_k": 0} if sample else {}),
        )  # fmt: skip
        embedded = self.writer.embed(patches, start)
        ones = torch.ones(embedded.shape[:2], dtype=torch.long, device=patches.device)
        return self.writer.decoder.generate(
            inputs_embeds=embedded, attention_mask=ones, generation_config=settings
        )

    def texts(self, tokens: Int[Tensor, "b l"]) -> list[str]:
        """Tokens as text."""
        return [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def caption(self, images: Float[Tensor, "b c h w"], **how: Any) -> list[str]:
        """Captions of pictures; `how` as for `write`."""
        return self.texts(self.write(self.see(images), **how))

    def save(self, folder: Path, *, half: bool = False) -> list[Path]:
        """Write a folder that `load_captioner` reads: weights, description, tokenizer. CLIP is named, not copied."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            key: value.detach().to("cpu", torch.float16 if half else torch.float32).contiguous()
            for key, value in self.writer.state_dict().items()
            if key != "decoder.lm_head.weight"  # the table of words, once more
        }
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / DESCRIPTION).write_text(json.dumps(asdict(self.shape), indent=2) + "\n", encoding="utf-8")
        self.tokenizer.save_pretrained(folder)
        return [folder / WEIGHTS, folder / DESCRIPTION]


def load_captioner(name: str) -> Captioner:
    """A captioner on the CPU. Fresh weights come from torch's global generator: call it under a seeded one.

    Args:
        name: `captioner-tiny`, a folder that `Captioner.save` wrote, a run, `new:CLIP` for a fresh one on the named CLIP,
            or `new:CLIP+DECODER` with the weights of a GPT-2 by hub name or folder.

    Raises:
        StudioError: There is none of this name.
    """
    if name.startswith(NEW):
        clip, _, decoder = name.removeprefix(NEW).partition("+")
        return _fresh(clip, decoder)
    folder = _folder(name)
    described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    shape = Shape(**described)
    made = _assembled(
        shape, GPT2LMHeadModel(GPT2Config(**shape.decoder)), AutoTokenizer.from_pretrained(folder)
    )
    tensors = load_file(folder / WEIGHTS)
    tensors["decoder.lm_head.weight"] = tensors["decoder.transformer.wte.weight"]
    made.writer.load_state_dict({key: value.float() for key, value in tensors.items()})
    return made


def _fresh(clip: str, decoder: str) -> Captioner:
    if decoder:
        try:
            tokenizer = AutoTokenizer.from_pretrained(decoder)
            language = GPT2LMHeadModel.from_pretrained(decoder)
        except (OSError, ValueError) as error:
            raise StudioError(
                f"The language model {decoder!r} is not on this machine and cannot be fetched "
                f"({str(error).splitlines()[0]}); give a folder of a GPT-2, or none for a small fresh one.",
                field="model",
            ) from error
    else:
        tokenizer = AutoTokenizer.from_pretrained(assets.path("models/studio-tiny-clip"))
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        language = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=64, **FRESH, **ends))
    return _assembled(Shape(clip=clip, decoder=_plain(language.config)), language, tokenizer)


def _plain(config: GPT2Config) -> dict[str, Any]:
    """A configuration without what only says where it came from."""
    return {
        key: value for key, value in config.to_diff_dict().items() if key not in ("_name_or_path", "dtype")
    }


def _assembled(shape: Shape, language: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase) -> Captioner:
    needed = shape.grid**2 + MAX_TOKENS + 1
    if language.config.n_positions < needed:
        raise StudioError(
            f"The language model reads {language.config.n_positions} tokens, but a picture and a caption take {needed}; "
            "choose another one.",
            field="model",
        )
    clip = load_clip(shape.clip)
    return Captioner(clip, Writer(clip.width("image"), language), tokenizer, shape)


def is_captioner(name: str) -> bool:
    """Whether a name means a captioner, rather than another model that describes pictures."""
    return name == EMBEDDED or _found(name) is not None


def _found(name: str) -> Path | None:
    """The folder that a name means: the embedded model's, the given one, or the export of a run."""
    given = Path(name).expanduser()
    places = (
        assets.root() / "models" / name,
        given,
        given / "export" / "captioner",
        Path("runs") / name / "export" / "captioner",
    )
    return next((place for place in places if (place / DESCRIPTION).is_file()), None)


def _folder(name: str) -> Path:
    if found := _found(name):
        return found
    raise StudioError(
        f"There is no captioner {name!r}: no {DESCRIPTION} there or in its export folder; give {EMBEDDED}, a folder or a "
        f"run of `studio train captioner`, or {NEW}studio-tiny-clip for a fresh one.",
        field="model",
    )

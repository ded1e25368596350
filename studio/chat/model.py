"""Chat models that see: a vision tower, a projector and a causal language model, all from transformers.

    model = load_vlm("llava-hf/llava-onevision-qwen2-0.5b-ov-hf")
    model.answer([conversation])

Anything that `AutoModelForImageTextToText` and `AutoProcessor` load and whose way of being spoken to is known
(`studio.chat.speech`). Axes: `b` conversations, `l` tokens, `d` width of the language model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from studio.chat.pictures import limit
from studio.chat.speech import Inputs, Speech, speech_of
from studio.data.conversations import Conversation
from studio.errors import StudioError
from studio.models.tiny_vlm import TINY

Part = Literal["vision", "projector", "language"]
IGNORED = -100
"""Label of a token that the loss leaves out, as transformers counts it."""
_HEAD = "lm_head"
_TILED = 5
"""Axes of pictures with their tiles: pictures, tiles, channels, height, width."""
_TILES = ("pixel_values", "pixel_attention_mask")
_PROJECTORS = ("projector", "connector", "merger", "resampler")


@dataclass(frozen=True)
class Encoded:
    """One conversation as the model reads it: tensors with a first axis of one, and the labels of its answers."""

    inputs: Inputs
    labels: Int[Tensor, " l"]


@dataclass(frozen=True)
class ChatModel:
    """A model with its processor."""

    network: Any
    processor: Any
    name: str
    speech: Speech

    @property
    def language(self) -> nn.Module:
        """The causal language model without its output layer."""
        return self.network.get_decoder()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.network.device

    def place(self, part: nn.Module) -> str:
        """Name of a module of the network."""
        return next(name for name, module in self.network.named_modules() if module is part)

    def part_of(self, parameter: str) -> Part:
        """The part that a parameter of the network belongs to."""
        if parameter.startswith((f"{self.place(self.language)}.", f"{_HEAD}.")):
            return "language"
        return "projector" if any(word in parameter for word in _PROJECTORS) else "vision"

    # ---------------------------------------------------------------- conversations to tensors

    def prompt(self, conversation: Conversation) -> Inputs:
        """A conversation that ends with a question as tensors, with what opens the answer."""
        return self.speech.asked(conversation)

    def encode(self, conversation: Conversation, max_tokens: int = 0, *, cut: bool = False) -> Encoded:
        """A conversation whose labels are its answers, each with what ends it.

        Args:
            conversation: Ends with an answer.
            max_tokens: Longest one, pictures included; 0 is what the model was made for.
            cut: A longer one loses its rest; otherwise it is refused.

        Raises:
            StudioError: It is too long, or the model cannot be told such a conversation.
        """
        said = self.speech.whole(conversation)
        labels = said.inputs["input_ids"][0].masked_fill(~said.learned, IGNORED)
        most = max_tokens or self.longest
        if len(labels) <= most:
            return Encoded(said.inputs, labels)
        return self._cut(conversation, Encoded(said.inputs, labels), most, cut=cut)

    @property
    def image_token(self) -> int:
        """Id of the token that stands for a part of a picture."""
        return int(self.network.config.image_token_id)

    @property
    def longest(self) -> int:
        """Tokens that the language model was made for."""
        return int(self.network.config.get_text_config().max_position_embeddings)

    def _cut(self, conversation: Conversation, whole: Encoded, most: int, *, cut: bool) -> Encoded:
        length = len(whole.labels)
        answered = bool((whole.labels[:most] != IGNORED).any())
        shown = int(whole.inputs["input_ids"][0, most:].eq(self.image_token).sum())
        if not cut or not answered or shown:
            why = "" if not cut else ", and cutting it would leave no answer or half a picture"
            raise StudioError(
                f"Conversation {conversation.name!r} has {length} tokens, more than max_tokens {most}{why}; raise "
                "--max-tokens, make its pictures smaller with --max-pixels, shorten it, or set --too-long cut.",
                field="max_tokens",
            )
        inputs = {k: v[:, :most] if _per_token(v, length) else v for k, v in whole.inputs.items()}
        return Encoded(inputs, whole.labels[:most])

    def collate(self, rows: Sequence[Inputs], *, left: bool = False) -> Inputs:
        """Several conversations as one batch on the model's device, padded at the end (or the start, to go on writing)."""
        lengths = [row["input_ids"].shape[1] for row in rows]
        padding = {"input_ids": int(self.processor.tokenizer.pad_token_id), "attention_mask": 0}
        made: Inputs = {}
        tiled = any(row["pixel_values"].ndim == _TILED for row in rows if "pixel_values" in row)
        for key in dict.fromkeys(key for row in rows for key in row):
            values = [row[key] for row in rows if key in row]
            if all(_per_token(row[key], n) for row, n in zip(rows, lengths, strict=True) if key in row):
                values = [_padded(v, max(lengths), padding.get(key, 0), left=left) for v in values]
            made[key] = torch.cat(_same_shape(values, tiled=tiled and key in _TILES)).to(self.device)
        return made

    # ---------------------------------------------------------------- what the model says

    def answer_loss(self, examples: Sequence[Encoded]) -> Float[Tensor, " b"]:
        """Next-token loss of each conversation: the mean over the tokens of its answers.

        Logits are made where some conversation has an answer: pictures are thousands of tokens, and a vocabulary is wide.
        """
        inputs = self.collate([one.inputs for one in examples])
        length = inputs["input_ids"].shape[1]
        labels = torch.stack([F.pad(e.labels, (0, length - len(e.labels)), value=IGNORED) for e in examples])
        places = (labels[:, 1:] != IGNORED).any(0).nonzero()[:, 0]
        wanted = labels[:, places + 1].to(self.device)
        logits = self.network(**inputs, logits_to_keep=places.to(self.device)).logits
        each = F.cross_entropy(logits.float().transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
        return each.sum(1) / (wanted != IGNORED).sum(1)

    def last_states(self, rows: Sequence[Inputs]) -> Float[Tensor, "b d"]:
        """The language model's last state at each conversation's last token."""
        inputs = self.collate(rows)
        states = self.network.model(**inputs).last_hidden_state
        last = inputs["attention_mask"].sum(1) - 1
        return states[torch.arange(len(states), device=states.device), last]

    @torch.no_grad()
    def answer(self, asked: Sequence[Conversation], max_tokens: int = 64) -> list[str]:
        """The likeliest answers to conversations that end with a question."""
        texts: list[str] = []
        settings = GenerationConfig(
            max_new_tokens=max_tokens, do_sample=False, pad_token_id=self.processor.tokenizer.pad_token_id,
            eos_token_id=self._ends(),
        )  # fmt: skip
        for one in asked:
            inputs = self.collate([self.prompt(one)], left=True)
            written = self.network.generate(**inputs, generation_config=settings)
            new = written[:, inputs["input_ids"].shape[1] :]
            texts += [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]
        return texts

    def _ends(self) -> list[int]:
        """Tokens that end an answer: those that the model declares, and the one that its answers are taught to end with."""
        declared = self.network.generation_config.eos_token_id
        own = self.processor.tokenizer.convert_tokens_to_ids(self.speech.ends)
        return sorted({own, *(declared if isinstance(declared, list) else [declared])} - {None})

    def save(self, network: nn.Module, folder: Path) -> list[Path]:
        """Write a network of this architecture with the processor, as a folder that transformers reads."""
        network.save_pretrained(folder)  # pyright: ignore[reportCallIssue]  # every transformers model has it
        self.processor.save_pretrained(folder)
        return sorted(folder.glob("*.safetensors"))


def _per_token(value: Tensor, length: int) -> bool:
    return value.ndim == 2 and value.shape == (1, length)


def _padded(value: Tensor, length: int, filler: int, *, left: bool) -> Tensor:
    missing = length - value.shape[1]
    return F.pad(value, (missing, 0) if left else (0, missing), value=filler)


def _same_shape(values: Sequence[Tensor], *, tiled: bool) -> list[Tensor]:
    """Tensors with as many tiles a picture as the one with most (LLaVA-OneVision, Idefics3: pictures, tiles, c, h, w)."""
    if not tiled:
        return list(values)
    most = max(value.shape[1] for value in values)
    return [F.pad(value, (0, 0) * (value.ndim - 2) + (0, most - value.shape[1])) for value in values]


def load_vlm(name: str, max_pixels: int = 0, template: str = "") -> ChatModel:
    """A chat model by name, on the CPU in fp32.

    Args:
        name: A hub name or folder of an image-text-to-text model of transformers, a run, or one of `TINY`, which takes
            its weights from torch's global generator.
        max_pixels: Most pixels of a picture; 0 leaves what the model was made for.
        template: A Jinja file to take for the model's own chat template; empty takes its own.

    Raises:
        StudioError: It is not there, is no such model, or how it is spoken to is not known.
    """
    if name.startswith("tiny:"):
        if name not in TINY:
            raise StudioError(f"There is no {name!r}; tiny models are: {', '.join(TINY)}.", field="model")
        network, processor = TINY[name]()
    else:
        processor = _loaded(AutoProcessor, name)
        network = _loaded(AutoModelForImageTextToText, name, dtype=torch.float32).eval()
    return _made(network, processor, name, max_pixels, template)


@dataclass(frozen=True)
class Reader:
    """What a chat model reads, without its weights."""

    processor: Any
    config: Any
    speech: Speech


def load_reader(name: str, max_pixels: int = 0, template: str = "") -> Reader:
    """What a chat model reads; arguments and errors are those of `load_vlm`."""
    if name.startswith("tiny:"):
        made = load_vlm(name, max_pixels, template)
        return Reader(made.processor, made.network.config, made.speech)
    processor, config = _loaded(AutoProcessor, name), _loaded(AutoConfig, name)
    limit(processor.image_processor, config, max_pixels)
    return Reader(processor, config, speech_of(processor, name, template))


def _made(network: Any, processor: Any, name: str, max_pixels: int, template: str) -> ChatModel:
    limit(processor.image_processor, network.config, max_pixels)
    made = ChatModel(network, processor, name, speech_of(processor, name, template))
    if made.language is network or made.language is network.base_model:
        raise StudioError(
            f"{type(network).__name__} has no language model of its own to finetune; take a LLaVA-like model.",
            field="model",
        )
    return made


def _loaded(kind: Any, name: str, **how: Any) -> Any:
    """What a class of transformers reads of a model by name."""
    source = next((str(p) for p in _folders(name) if (p / "config.json").is_file()), name)
    try:
        return kind.from_pretrained(source, **how)
    except ImportError as error:
        raise StudioError(
            f"The model {name!r} needs a package that is not installed ({_first_line(error)}); pip install "
            "'finetuning-studio[chat]' has what chat models need.",
            field="model",
        ) from error
    except (OSError, ValueError) as error:
        raise StudioError(
            f"The model {name!r} cannot be loaded ({_first_line(error)}); give a folder or a hub name of an "
            "image-text-to-text model of transformers, such as llava-hf/llava-onevision-qwen2-0.5b-ov-hf.",
            field="model",
        ) from error


def _folders(name: str) -> tuple[Path, ...]:
    given = Path(name).expanduser()
    return (given / "export" / "model", Path("runs") / name / "export" / "model", given)


def _first_line(error: Exception) -> str:
    return next(
        (line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__
    )

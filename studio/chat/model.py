"""Chat models that see: a vision tower, a projector and a causal language model, all from transformers.

    model = load_vlm("llava-hf/llava-onevision-qwen2-0.5b-ov-hf")
    model.answer([conversation])

Anything that `AutoModelForImageTextToText` and `AutoProcessor` load, with its own chat template. Axes: `b` conversations,
`l` tokens, `d` width of the language model.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from studio.data.conversations import Conversation
from studio.data.images import read
from studio.errors import StudioError
from studio.models.tiny_vlm import TINY

Part = Literal["vision", "projector", "language"]
IGNORED = -100
"""Label of a token that the loss leaves out, as transformers counts it."""
_LANGUAGE, _HEAD = "language_model", "lm_head"
_PROJECTORS = ("projector", "connector", "merger", "resampler")
_ONE_AT_A_TIME = threading.Lock()
"""Batches are made in threads, and a tokenizer of the tokenizers library may be in one call at a time only."""
Inputs = dict[str, Tensor]


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

    @property
    def language(self) -> nn.Module:
        """The causal language model without its output layer."""
        return self.network.model.language_model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.network.device

    def part_of(self, parameter: str) -> Part:
        """The part that a parameter of the network belongs to."""
        if _LANGUAGE in parameter or parameter.startswith(_HEAD):
            return "language"
        return "projector" if any(word in parameter for word in _PROJECTORS) else "vision"

    # ---------------------------------------------------------------- conversations to tensors

    def prompt(self, conversation: Conversation, stop: int | None = None, *, asks: bool) -> Inputs:
        """The first `stop` turns as tensors; `asks` opens the assistant's next turn."""
        text = self.processor.apply_chat_template(
            conversation.messages(stop), add_generation_prompt=asks, tokenize=False
        )
        shown = [read(path).rgb for path in conversation.pictures[: conversation.marks(stop)]]
        with _ONE_AT_A_TIME:
            made = self.processor(text=[text], images=shown or None, return_tensors="pt")
        return {key: value for key, value in made.items() if isinstance(value, Tensor)}

    def encode(self, conversation: Conversation, max_tokens: int, *, cut: bool) -> Encoded:
        """A conversation whose labels are its answers, each with what ends it.

        Args:
            conversation: Ends with an answer.
            max_tokens: Longest one, pictures included.
            cut: A longer one loses its rest; otherwise it is refused.

        Raises:
            StudioError: It is too long, or the chat template changes earlier turns when later ones come.
        """
        inputs = self.prompt(conversation, asks=False)
        tokens = inputs["input_ids"][0]
        labels = torch.full_like(tokens, IGNORED)
        for place, turn in enumerate(conversation.turns):
            if turn.role == "assistant":
                start, stop = (self._length(conversation, place + n, tokens, asks=not n) for n in (0, 1))
                labels[start:stop] = tokens[start:stop]
        if len(tokens) <= max_tokens:
            return Encoded(inputs, labels)
        return self._cut(conversation, Encoded(inputs, labels), max_tokens, cut=cut)

    def _length(self, conversation: Conversation, stop: int, tokens: Int[Tensor, " l"], *, asks: bool) -> int:
        """Tokens of the first turns; they must be the first tokens of the whole."""
        front = self.prompt(conversation, stop, asks=asks)["input_ids"][0]
        if not torch.equal(front, tokens[: len(front)]):
            raise StudioError(
                f"The chat template of {self.name!r} writes earlier turns differently when later ones follow, so answers "
                "cannot be told apart; use conversations of one question and one answer, or another model.",
                field="model",
            )
        return len(front)

    def _cut(self, conversation: Conversation, whole: Encoded, most: int, *, cut: bool) -> Encoded:
        length = len(whole.labels)
        answered = bool((whole.labels[:most] != IGNORED).any())
        shown = int(whole.inputs["input_ids"][0, most:].eq(self.network.config.image_token_id).sum())
        if not cut or not answered or shown:
            why = "" if not cut else ", and cutting it would leave no answer or half a picture"
            raise StudioError(
                f"Conversation {conversation.name!r} has {length} tokens, more than max_tokens {most}{why}; raise "
                "--max-tokens, shorten it, or set --too-long cut.",
                field="max_tokens",
            )
        inputs = {k: v[:, :most] if _per_token(v, length) else v for k, v in whole.inputs.items()}
        return Encoded(inputs, whole.labels[:most])

    def collate(self, rows: Sequence[Inputs], *, left: bool = False) -> Inputs:
        """Several conversations as one batch on the model's device, padded at the end (or the start, to go on writing)."""
        lengths = [row["input_ids"].shape[1] for row in rows]
        padding = {"input_ids": int(self.processor.tokenizer.pad_token_id), "attention_mask": 0}
        made: Inputs = {}
        for key in dict.fromkeys(key for row in rows for key in row):
            values = [row[key] for row in rows if key in row]
            if all(_per_token(row[key], n) for row, n in zip(rows, lengths, strict=True) if key in row):
                values = [_padded(v, max(lengths), padding.get(key, 0), left=left) for v in values]
            made[key] = torch.cat(_same_shape(values)).to(self.device)
        return made

    # ---------------------------------------------------------------- what the model says

    def answer_loss(self, examples: Sequence[Encoded]) -> Float[Tensor, " b"]:
        """Next-token loss of each conversation: the mean over the tokens of its answers."""
        inputs = self.collate([one.inputs for one in examples])
        length = inputs["input_ids"].shape[1]
        labels = torch.stack([F.pad(e.labels, (0, length - len(e.labels)), value=IGNORED) for e in examples])
        logits = self.network(**inputs).logits[:, :-1]
        wanted = labels[:, 1:].to(logits.device)
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
        tokenizer, ends = self.processor.tokenizer, self.network.generation_config.eos_token_id
        settings = GenerationConfig(
            max_new_tokens=max_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id if ends is None else ends,
        )  # fmt: skip
        for one in asked:
            inputs = self.collate([self.prompt(one, asks=True)], left=True)
            written = self.network.generate(**inputs, generation_config=settings)
            new = written[:, inputs["input_ids"].shape[1] :]
            texts += [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]
        return texts

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


def _same_shape(values: Sequence[Tensor]) -> list[Tensor]:
    """Tensors with as many tiles a picture as the one with most (LLaVA-NeXT, OneVision: pictures, tiles, c, h, w)."""
    if values[0].ndim != 5:
        return list(values)
    most = max(value.shape[1] for value in values)
    return [F.pad(value, (0, 0) * 3 + (0, most - value.shape[1])) for value in values]


def load_vlm(name: str) -> ChatModel:
    """A chat model by name, on the CPU in fp32.

    Args:
        name: A hub name or folder of an image-text-to-text model of transformers, a run, or one of `TINY`, which takes
            its weights from torch's global generator.

    Raises:
        StudioError: It is not there, is no such model, or its processor has no chat template.
    """
    if name.startswith("tiny:"):
        if name not in TINY:
            raise StudioError(f"There is no {name!r}; tiny models are: {', '.join(TINY)}.", field="model")
        return ChatModel(*TINY[name](), name)
    source = next((str(p) for p in _folders(name) if (p / "config.json").is_file()), name)
    try:
        processor: Any = AutoProcessor.from_pretrained(source)
        network: Any = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise StudioError(
            f"The model {name!r} cannot be loaded ({_first_line(error)}); give a folder or a hub name of an "
            "image-text-to-text model of transformers, such as llava-hf/llava-onevision-qwen2-0.5b-ov-hf.",
            field="model",
        ) from error
    made = ChatModel(network.eval(), processor, name)
    _check(made)
    return made


def _folders(name: str) -> tuple[Path, ...]:
    given = Path(name).expanduser()
    return (given / "export" / "model", Path("runs") / name / "export" / "model", given)


def _check(model: ChatModel) -> None:
    if not model.processor.chat_template:
        raise StudioError(
            f"The processor of {model.name!r} has no chat template, so turns cannot be told apart; take a model that was "
            "trained to chat.",
            field="model",
        )
    if not any(_LANGUAGE in key for key, _ in model.network.named_parameters()):
        raise StudioError(
            f"{type(model.network).__name__} has no language model of its own to finetune; take a LLaVA-like model.",
            field="model",
        )


def _first_line(error: Exception) -> str:
    return next(
        (line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__
    )

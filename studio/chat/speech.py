"""How a chat model is spoken to, by what it declares: the text of its turns, the tokens of its pictures, what ends an answer.

    speech = speech_of(processor, name)
    speech.whole(conversation)        # tensors, and which tokens are learned
    speech.asked(conversation)        # tensors that an answer follows

A processor with a chat template is spoken to as the template says (`studio.chat.template`); one that takes a prefix and a suffix
(PaliGemma) by those. Any other is refused, since the turns that it was trained on are not known. `l` is tokens.
"""

import inspect
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from studio.chat.template import Said, Template
from studio.data.conversations import MARK, Conversation
from studio.data.images import read
from studio.errors import StudioError

Inputs = dict[str, Tensor]
_ONE_AT_A_TIME = threading.Lock()
"""Batches are made in threads, and a tokenizer of the tokenizers library may be in one call at a time only."""


@dataclass(frozen=True)
class Whole:
    """A conversation as the model reads it: tensors with a first axis of one, and which tokens are learned."""

    inputs: Inputs
    learned: Bool[Tensor, " l"]


@runtime_checkable
class Speech(Protocol):
    """What a kind of chat model is told, and what of it is learned."""

    @property
    def ends(self) -> str:
        """The token that ends an answer."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about it, in sentences."""
        ...

    def whole(self, conversation: Conversation) -> Whole:
        """A conversation that ends with an answer."""
        ...

    def asked(self, conversation: Conversation) -> Inputs:
        """A conversation that ends with a question, and what opens the answer to it."""
        ...


def speech_of(processor: Any, name: str, template: str = "") -> Speech:
    """How the model of a processor is spoken to.

    Args:
        processor: Of transformers, with a tokenizer.
        name: The model's, for sentences.
        template: Path of a Jinja file to take for the processor's own chat template; empty takes its own.

    Raises:
        StudioError: Nothing it declares says how, or its template cannot be used.
    """
    if template:
        processor.chat_template = _file(template)
    if processor.chat_template:
        return ByTemplate(processor, Template(processor, name))
    if "suffix" in inspect.signature(type(processor).__call__).parameters:
        return BySuffix(processor, name)
    raise StudioError(
        f"How {name!r} is spoken to is not known: its processor has no chat template, and takes no prefix and suffix as "
        "PaliGemma's does; give one of its kind that was trained to chat, or a template: --template FILE.jinja.",
        field="model",
    )


def _file(template: str) -> str:
    path = Path(template).expanduser()
    if not path.is_file():
        raise StudioError(
            f"There is no file {template!r}; give a chat template as a Jinja file.", field="template"
        )
    return path.read_text(encoding="utf-8")


@dataclass(frozen=True)
class ByTemplate:
    """Turns written by a chat template."""

    processor: Any
    template: Template

    @property
    def ends(self) -> str:
        """The token that ends an answer."""
        return self.template.ends

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the template."""
        return self.template.notes

    def whole(self, conversation: Conversation) -> Whole:
        """A conversation that ends with an answer; answers and what ends them are learned."""
        said = self.template.whole(conversation)
        inputs = _called(
            self.processor,
            said.text,
            conversation.pictures,
            return_offsets_mapping=True,
            return_text_replacement_offsets=True,
        )
        return Whole(_tensors(inputs), _inside(inputs, said))

    def asked(self, conversation: Conversation) -> Inputs:
        """A conversation that ends with a question, and what opens the answer to it."""
        return _tensors(_called(self.processor, self.template.asked(conversation), conversation.pictures))


def _called(processor: Any, text: str, pictures: Sequence[Path], **asked: bool) -> Any:
    """What a processor makes of one text; a first token that a template wrote is not written twice (Gemma)."""
    first = getattr(processor.tokenizer, "bos_token", None)
    begun = {"add_special_tokens": False} if first and text.startswith(first) else {}
    shown = [read(path).rgb for path in pictures]
    with _ONE_AT_A_TIME:
        return processor(text=[text], images=shown or None, return_tensors="pt", **begun, **asked)


def _tensors(inputs: Any) -> Inputs:
    """What the network takes."""
    apart = ("offset_mapping", "text_replacement_offsets", "labels")
    return {key: value for key, value in inputs.items() if isinstance(value, Tensor) and key not in apart}


def _inside(inputs: Any, said: Said) -> Bool[Tensor, " l"]:
    """Which tokens lie in the learned parts of a text, whose pictures became longer in front of the tokenizer."""
    places = inputs.get("text_replacement_offsets", [[]])  # absent without pictures
    moved = [(place["span"][1], place["new_span"][1] - place["span"][1]) for place in places[0]]
    starts, stops = inputs["offset_mapping"][0].unbind(-1)
    learned = torch.zeros(len(starts), dtype=torch.bool)
    for span in said.learned:
        first, last = (at + max((more for end, more in moved if end <= at), default=0) for at in span)
        learned |= (starts < last) & (stops > first) & (stops > starts)
    return learned


@dataclass(frozen=True)
class BySuffix:
    """A prefix that is read as a whole and a suffix that is written, as PaliGemma has them (Beyer et al., arXiv 2407.07726).

    Pictures, the first token, the question and a line break are the prefix; the answer and the end token the suffix. There is
    one question and one answer.
    """

    processor: Any
    name: str
    notes: tuple[str, ...] = ()

    @property
    def ends(self) -> str:
        """The token that ends an answer."""
        return self.processor.tokenizer.eos_token

    def whole(self, conversation: Conversation) -> Whole:
        """A question and its answer; the answer and the end token are learned."""
        asked, answer = (
            self.asked(conversation.first(len(conversation.turns) - 1)),
            conversation.turns[-1].text,
        )
        suffix = self.processor.tokenizer(answer + self.ends, add_special_tokens=False, return_tensors="pt")[
            "input_ids"
        ]
        front = asked["input_ids"].shape[1]
        added = {
            "input_ids": suffix,
            "attention_mask": torch.ones_like(suffix),
            "token_type_ids": torch.ones_like(suffix),
        }
        inputs = {k: torch.cat([v, added[k]], 1) if k in added else v for k, v in asked.items()}
        return Whole(inputs, torch.arange(inputs["input_ids"].shape[1]) >= front)

    def asked(self, conversation: Conversation) -> Inputs:
        """The prefix of a conversation of one question."""
        roles = [turn.role for turn in conversation.turns]
        if roles != ["user"]:
            raise StudioError(
                f"{self.name!r} answers one question, and conversation {conversation.name!r} has turns of {', '.join(roles)} before "
                "its last answer; split it into conversations of one question and one answer.",
                field="data",
            )
        question = conversation.turns[0].text.replace(MARK, "").strip()
        tokenizer = self.processor.tokenizer
        if conversation.pictures:
            return _tensors(
                _called(self.processor, self._marked(conversation, question), conversation.pictures)
            )
        with _ONE_AT_A_TIME:
            text = f"{tokenizer.bos_token}{question}\n"
            inputs = tokenizer(
                text, add_special_tokens=False, return_tensors="pt", return_token_type_ids=True
            )
        return _tensors(inputs)

    def _marked(self, conversation: Conversation, question: str) -> str:
        return self.processor.image_token * len(conversation.pictures) + question

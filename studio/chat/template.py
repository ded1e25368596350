"""Conversations as a model's chat template writes them, and which letters of the text are learned: answers and what ends them.

Where an answer is, the template tells itself: it writes the conversation once with the answers, once with a mark in place of
each, and what stands around the marks stands around the answers. What opens an answer is the template's generation prompt,
since that is what an answer follows when the model is asked. What ends one is the special token behind the last answer; a
template that ends an answer with nothing (LLaVA-1.5, LLaVA-NeXT) gets the tokenizer's end token there, as the models were
trained (LLaVA's conversation.py, `SeparatorStyle.TWO`).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from studio.data.conversations import Conversation, Turn
from studio.errors import StudioError

_MARK = "\ue000"
"""Stands for an answer: a letter of no language."""
_QUESTION = "\ue001"


@dataclass(frozen=True)
class Said:
    """A conversation as text.

    Attributes:
        text: All of it, each picture as one token.
        learned: First letter and the one behind the last of what is learned, in their order.
    """

    text: str
    learned: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Template:
    """The chat template of a processor."""

    processor: Any
    name: str

    def __post_init__(self) -> None:
        """Refuse a template that writes nothing of what it is given."""
        said = self._written(_PROBE)
        if said.count(_MARK) != 1 or said.count(_QUESTION) != 1:
            raise self._wrong("leaves out what is said, or says it twice")

    # ---------------------------------------------------------------- what it writes

    def asked(self, conversation: Conversation) -> str:
        """A conversation that ends with a question, and what opens the answer."""
        text = self._written(conversation, asks=True)
        answered = [place for place, turn in enumerate(conversation.turns) if turn.role == "assistant"]
        if not answered:
            return text
        before = conversation.first(answered[-1] + 1)
        front = self._written(before)
        return self.whole(before).text + text.removeprefix(front) if text.startswith(front) else text

    def whole(self, conversation: Conversation) -> Said:
        """A conversation that ends with an answer.

        Raises:
            StudioError: The template changes the answers.
        """
        places = [place for place, turn in enumerate(conversation.turns) if turn.role == "assistant"]
        marked = _with_marks(conversation)
        around = self._written(marked).split(_MARK)
        if len(around) != len(places) + 1:
            raise self._wrong(
                f"writes {len(around) - 1} of the {len(places)} answers of conversation {conversation.name!r}"
            )
        answers = self._answers(conversation, around)
        text, learned = "", []
        for number, (place, answer) in enumerate(zip(places, answers, strict=True)):
            opened = self._opened(marked.first(place), _MARK.join(around[: number + 1]))
            lead = around[number] if number == 0 else self._behind(around[number])
            text += lead[: len(lead) - opened.dropped] + opened.written
            start = len(text) - opened.learned
            text += answer + self._end(around[number + 1])
            learned.append((start, len(text)))
        return Said(text + self._behind(around[-1]), tuple(learned))

    def _answers(self, conversation: Conversation, around: list[str]) -> list[str]:
        """The answers as the template writes them: as they are, or without the white space around them (Gemma)."""
        rest, found = self._written(conversation), []
        for answer, front, behind in zip(conversation.answers, around, around[1:], strict=False):
            rest = rest.removeprefix(front) if not found else rest
            forms = [form for form in (answer, answer.strip()) if rest.startswith(form + behind)]
            if not forms:
                raise self._wrong(f"changes the answers of conversation {conversation.name!r}")
            rest = rest.removeprefix(forms[0] + behind)
            found.append(forms[0])
        return found

    def _opened(self, before: Conversation, text: str) -> "_Opening":
        """How an answer opens behind `text`, the marked conversation up to it."""
        front, asked = self._written(before), self._written(before, asks=True)
        if text.startswith(asked):
            return _Opening(learned=len(text) - len(asked))
        prompt = asked.removeprefix(front)
        own = text.removeprefix(front)
        if asked.startswith(front) and text.startswith(front) and own.split() == prompt.split():
            return _Opening(
                dropped=len(own), written=prompt
            )  # they differ in white space alone (LLaVA-OneVision)
        return _Opening()

    # ---------------------------------------------------------------- what ends an answer

    @cached_property
    def _own_end(self) -> str:
        """The special token that the template writes behind the last answer; empty where there is none."""
        behind = self._written(_PROBE).split(_MARK)[1].lstrip()
        added = self.processor.tokenizer.added_tokens_decoder.values()
        special = {str(token) for token in added if token.special} | set(
            self.processor.tokenizer.all_special_tokens
        )
        return max((token for token in special if token and behind.startswith(token)), key=len, default="")

    @property
    def ends(self) -> str:
        """The token that ends an answer.

        Raises:
            StudioError: Neither the template nor the tokenizer has one.
        """
        found = self._own_end or self.processor.tokenizer.eos_token
        if not found:
            raise self._wrong("ends an answer with nothing, and the tokenizer has no end token")
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """That the end token is ours, where it is."""
        if self._own_end:
            return ()
        return (
            f"the chat template of {self.name!r} ends an answer with nothing: {self.ends} is written there, so that it learns to stop",
        )

    def _end(self, behind: str) -> str:
        """What is learned behind an answer: white space and the end token of the template, or the tokenizer's."""
        space = behind[: len(behind) - len(behind.lstrip())]
        own = self._own_end and behind[len(space) :].startswith(self._own_end)
        return space + self._own_end if own else self.ends

    def _behind(self, behind: str) -> str:
        """What follows an answer and its end."""
        return behind.lstrip().removeprefix(self._own_end) if self._own_end else behind.lstrip()

    def _written(self, conversation: Conversation, *, asks: bool = False) -> str:
        try:
            return self.processor.apply_chat_template(
                conversation.messages(), add_generation_prompt=asks, tokenize=False
            )
        except (TemplateError, TypeError, KeyError) as error:
            raise self._wrong(f"cannot write conversation {conversation.name!r} ({error})") from error

    def _wrong(self, what: str) -> StudioError:
        return StudioError(
            f"The chat template of {self.name!r} {what}, so what is to be learned cannot be told; take another model, or give a "
            "template of your own: --template FILE.jinja.",
            field="model",
        )


@dataclass(frozen=True)
class _Opening:
    """How many letters before an answer are dropped, what is written for them, and how many before the answer are learned."""

    dropped: int = 0
    written: str = ""
    learned: int = 0


def _with_marks(conversation: Conversation) -> Conversation:
    turns = tuple(Turn(t.role, _MARK) if t.role == "assistant" else t for t in conversation.turns)
    return replace(conversation, turns=turns)


_PROBE = Conversation("a probe", (Turn("user", _QUESTION), Turn("assistant", _MARK)))

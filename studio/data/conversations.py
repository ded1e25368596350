r"""Conversations about pictures in sharegpt form, as LLaVA has them.

    [{"id": "7", "image": "7.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is this?"},
                                                     {"from": "gpt", "value": "A fox."}]}, ...]

A list in a .json file or one object a line in a .jsonl file; `image` may be a list, one for each <image>.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from studio.backend.shard import Shard
from studio.contracts.batch import Batch
from studio.data import images
from studio.data.files import is_file, json_lines, read_json
from studio.data.order import Order
from studio.data.prefetch import prefetch
from studio.errors import StudioError

MARK = "<image>"
ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
Role = Literal["system", "user", "assistant"]
LISTED = 20
"""Problems that a check tells one by one."""


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: Role
    text: str


@dataclass(frozen=True)
class Conversation:
    """Turns about pictures, which stand where the text says <image>."""

    name: str
    turns: tuple[Turn, ...]
    pictures: tuple[Path, ...] = ()

    @property
    def answers(self) -> list[str]:
        """What the assistant says."""
        return [turn.text for turn in self.turns if turn.role == "assistant"]

    def messages(self) -> list[dict[str, Any]]:
        """The turns as transformers' chat templates take them."""
        return [{"role": turn.role, "content": _parts(turn.text)} for turn in self.turns]

    def first(self, stop: int) -> "Conversation":
        """The first `stop` turns, with the pictures that they show."""
        turns = self.turns[:stop]
        return Conversation(self.name, turns, self.pictures[: sum(turn.text.count(MARK) for turn in turns)])

    @property
    def marks(self) -> int:
        """Pictures that the turns show."""
        return sum(turn.text.count(MARK) for turn in self.turns)


def _parts(text: str) -> list[dict[str, str]]:
    """Text and pictures in their order; line breaks around a picture go, as templates set their own."""
    parts: list[dict[str, str]] = []
    for number, piece in enumerate(text.split(MARK)):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": piece.strip("\n")}] if piece.strip() else []
    return parts


def open_conversations(file: str | Path, pictures: str | Path = "") -> list[Conversation]:
    """All conversations of a file.

    Args:
        file: A .json or .jsonl file.
        pictures: Folder that the names of pictures start from; empty takes the file's.

    Raises:
        StudioError: The file cannot be read, or names the first conversation that cannot be used.
    """
    found, problems = read(file, pictures)
    if problems:
        more = f" ({len(problems) - 1} more: run `studio data check {file}`.)" if len(problems) > 1 else ""
        raise StudioError(f"{problems[0]}{more}", field="data")
    return found


def read(file: str | Path, pictures: str | Path = "") -> tuple[list[Conversation], list[str]]:
    """Usable conversations of a file, and what is wrong with the others, one sentence each.

    Raises:
        StudioError: There is no such file, or it holds no list of conversations.
    """
    path = Path(file).expanduser()
    folder = Path(pictures).expanduser() if str(pictures) else path.parent
    good: list[Conversation] = []
    problems: list[str] = []
    for number, item in enumerate(_items(path)):
        try:
            good.append(_conversation(item, number, folder))
        except StudioError as error:
            problems.append(str(error))
    return good, problems


def _items(path: Path) -> list[Any]:
    if not path.is_file():
        raise StudioError(
            f"There is no file {str(path)!r}; give a .json or .jsonl file of conversations.", field="data"
        )
    items = [item for _, item in json_lines(path)] if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(items, list) or not items:
        raise StudioError(f"{path} holds no list of conversations.", field="data")
    return items


def _conversation(item: Any, number: int, folder: Path) -> Conversation:
    name = str(item.get("id", number)) if isinstance(item, dict) else str(number)
    listed = item.get("conversations") if isinstance(item, dict) else None
    if not isinstance(listed, list) or not listed:
        raise _wrong(name, "has no list `conversations`")
    turns = tuple(_turn(one, name) for one in listed)
    _check_roles([turn.role for turn in turns], name)
    paths = tuple(folder / one for one in _names(item.get("image"), name))
    made = Conversation(name, turns, paths)
    if made.marks != len(paths):
        raise _wrong(name, f"says {MARK} {made.marks} times but names {len(paths)} pictures")
    for picture in paths:
        _check_picture(picture, name)
    return made


def _names(given: Any, name: str) -> list[str]:
    """Names of pictures: none, one, or a list."""
    found = [] if given is None else given if isinstance(given, list) else [given]
    for one in found:
        if not isinstance(one, str) or not one.strip() or "\0" in one:
            raise _wrong(
                name, f"has the image {one!r}; give the name of a file, a list of names, or null for none"
            )
    return found


def _turn(one: Any, name: str) -> Turn:
    source, text = (
        (one.get("from", one.get("role")), one.get("value", one.get("content")))
        if isinstance(one, dict)
        else (None, None)
    )
    if not isinstance(source, str) or source not in ROLES:
        raise _wrong(name, f"has a turn from {source!r}; turns are from human, gpt or system")
    if not isinstance(text, str) or not text.strip():
        raise _wrong(name, f"has an empty turn from {source!r}")
    role = ROLES[source]
    text = text.strip() if role == "assistant" else text  # what is learned begins and ends with a word
    return Turn(role, text)  # pyright: ignore[reportArgumentType]  # the table's values are roles


def _check_roles(roles: Sequence[str], name: str) -> None:
    spoken = roles[1:] if roles[0] == "system" else roles
    wanted = [("user", "assistant")[place % 2] for place in range(len(spoken))]
    if list(spoken) != wanted or len(spoken) % 2 or not spoken:
        raise _wrong(
            name, f"has turns of {', '.join(roles)}; human and gpt take turns, human begins and gpt ends"
        )


def _check_picture(picture: Path, name: str) -> None:
    if not is_file(picture):
        raise _wrong(name, f"names the picture {str(picture)[:120]}, which does not exist")
    try:
        images.size(picture)
    except images.BadImageError as error:
        raise _wrong(name, f"has a picture that cannot be used: {error}") from error


def _wrong(name: str, what: str) -> StudioError:
    return StudioError(f"Conversation {name!r} {what.rstrip('.')}.", field="data")


@dataclass(frozen=True)
class Checked:
    """What `studio data check FILE.json` finds."""

    good: int
    problems: tuple[str, ...]
    facts: tuple[str, ...]

    @property
    def can_train(self) -> bool:
        """Whether training would start."""
        return bool(self.good) and not self.problems

    def lines(self) -> list[str]:
        """As text."""
        shown = list(self.problems[:LISTED])
        hidden = [f"... and {len(self.problems) - LISTED} more"] if len(self.problems) > LISTED else []
        return [*self.facts, *shown, *hidden, self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "event": "check",
            "good": self.good,
            "problems": list(self.problems),
            "can_train": self.can_train,
        }

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.can_train:
            return f"All {self.good} conversations can be used."
        return f"{len(self.problems)} of {self.good + len(self.problems)} conversations cannot be used; mend or remove them."


def check(file: str | Path, pictures: str | Path = "") -> Checked:
    """Look at a file of conversations before training on it."""
    good, problems = read(file, pictures)
    words = [len(answer.split()) for one in good for answer in one.answers]
    facts: tuple[str, ...] = ()
    if good:
        shown = sum(len(one.pictures) for one in good)
        mean = sum(words) / len(words)
        said = f"{len(words)} answers of {min(words)} to {max(words)} words (mean {mean:.1f})"
        facts = (f"{len(good)} conversations, {said}, {shown} pictures",)
    return Checked(len(good), tuple(problems), facts)


class Conversations:
    """A `Source` of `examples`: whatever `encode` makes of each conversation, in a shuffled order."""

    def __init__(self, found: Sequence[Conversation], encode: Callable[[Conversation], Any]) -> None:
        self.found, self._encode = list(found), encode

    def __len__(self) -> int:
        return len(self.found)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches of steps `first`, `first + 1`, ..., made ahead."""
        order = Order(seed, shard.total, (tuple(range(len(self.found))),))

        def make(step: int) -> Batch:
            chosen = order.rows(step, shard.start, shard.stop)
            return {"examples": [self._encode(self.found[row]) for row in chosen]}

        return prefetch(make, first)


def first_questions(found: Sequence[Conversation], count: int) -> list[Conversation]:
    """Conversations cut before the first answer, for previews."""
    cut: list[Conversation] = []
    for one in itertools.islice(found, count):
        stop = next(place for place, turn in enumerate(one.turns) if turn.role == "assistant")
        cut.append(one.first(stop))
    return cut

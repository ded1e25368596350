"""The names of flags: what settings a class has, and what to say about one that it has not. No torch."""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from studio.errors import StudioError
from studio.flags.elsewhere import ELSEWHERE
from studio.settings import serial

Choice = tuple[str, tuple[type, ...]]
"""Dotted name of a choice between settings, and what it allows."""
NEAR = 3
"""Flags offered in place of one that does not exist."""


def choices(cls: type, prefix: str = "") -> Iterator[Choice]:
    """All choices between settings in a class, those inside of others too."""
    for name, annotation in serial.hints(cls).items():
        allowed = serial.members(annotation)
        if len(allowed) > 1:
            yield prefix + name, allowed
        for member in allowed:
            yield from choices(member, f"{prefix}{name}.")


def flag(path: str) -> str:
    """The flag of a setting: `--class-word` for `method.class_word`."""
    return "--" + path.removeprefix("method.").replace("_", "-")


def words(path: str, value: Any) -> list[str]:
    """How a person types a setting with its value; nothing for an empty list."""
    name = flag(path.removesuffix(".kind"))
    if isinstance(value, bool):
        return [name if value else _negated(name)]
    if isinstance(value, (list, tuple)):
        return [name, *(str(each) for each in value)] if value else []
    if isinstance(value, Mapping):
        return [name, *(str(each) for pair in value.items() for each in pair)] if value else []
    return [name, str(value)]


def refuse_unknown(made: Any, argv: Sequence[str], *, prog: str) -> None:
    """Refuse a flag that settings with these choices made do not have.

    Args:
        made: Settings, of which the types of what is chosen matter and no value.
        argv: Flags and values, without those that choose.
        prog: The command, as a person types it.

    Raises:
        StudioError: The first such flag, with the nearest ones or with the choice that it belongs to.
    """
    leaves = list(_leaves(made))
    known = {flag(path): path for path, _, _ in leaves}
    known |= {_negated(flag(path)): path for path, _, owner in leaves if _is_switch(path, owner)}
    for item in argv:
        given = item.partition("=")[0].replace("_", "-")
        if not item.startswith("--") or given in known or given == "--help" or given.startswith("--tyro-"):
            continue
        advice = _owner(type(made), given) or _elsewhere(type(made), given) or _nearest(given, known)
        raise StudioError(f"{prog} has no flag {given}{advice} All flags: {prog} --help", field=given[2:])


def refuse_missing(made: Any, argv: Sequence[str], *, prog: str, absent: object) -> None:
    """Refuse flags that leave out a setting without a default.

    Args:
        made: Settings with these choices made and `absent` in place of what has no default.
        argv: Flags and values.
        prog: The command, as a person types it.
        absent: What stands for no value.

    Raises:
        StudioError: All such settings, with what each is for.
    """
    given = {item.partition("=")[0].replace("_", "-") for item in argv}
    missing = [
        (path, owner) for path, value, owner in _leaves(made) if value is absent and flag(path) not in given
    ]
    if missing and not given & {"-h", "--help"}:
        wanted = " and ".join(f"{flag(path)} ({_text(path, owner)})" for path, owner in missing)
        raise StudioError(f"{prog} needs {wanted}.", field=missing[0][0].removeprefix("method."))


def every(cls: type, prefix: str = "") -> Iterator[str]:
    """All flags that settings can have, whatever is chosen among them."""
    for name, annotation in serial.hints(cls).items():
        path, allowed = f"{prefix}{name}", serial.members(annotation)
        if len(allowed) != 1:
            yield flag(path)
        if not allowed and _is_switch(path, cls):
            yield _negated(flag(path))
        for member in allowed:
            yield from every(member, f"{path}.")


def given(paths: Iterable[str], argv: Sequence[str]) -> set[str]:
    """Which of these settings, by dotted name, flags set; the name of a choice counts as its `kind`."""
    found = {item.partition("=")[0].replace("_", "-") for item in argv if item.startswith("--")}
    return {
        path for path in paths if {flag(path), _negated(flag(path)), flag(path.removesuffix(".kind"))} & found
    }


def _is_switch(path: str, owner: type) -> bool:
    """Whether a setting is on or off, so that `--no-...` exists."""
    annotation = serial.hints(owner)[path.rpartition(".")[2]]
    return bool in (annotation, *typing.get_args(annotation))


def _text(path: str, owner: type) -> str:
    """What a setting is for, as it reads inside a sentence."""
    text = serial.helps(owner)[path.rpartition(".")[2]]
    return f"{text[:1].lower()}{text[1:].rstrip('.')}"


def _negated(name: str) -> str:
    *groups, last = name.removeprefix("--").split(".")
    return "--" + ".".join([*groups, f"no-{last}"])


def _leaves(made: Any, prefix: str = "") -> Iterator[tuple[str, Any, type]]:
    """Dotted name, value and class of all settings, of choices only what is chosen."""
    for field in dataclasses.fields(made):
        value = getattr(made, field.name)
        if serial.is_config(type(value)):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value, type(made)


def _owner(cls: type, given: str) -> str:
    """Says what to choose for a flag to exist."""
    for path, allowed in choices(cls):
        owners = [
            serial.kind(m) for m in allowed for name in serial.hints(m) if flag(f"{path}.{name}") == given
        ]
        if owners:
            return f"; it belongs to {flag(path)} {' or '.join(owners)}."
    return ""


def _elsewhere(cls: type, given: str) -> str:
    """Says what a flag of another tool is called here, if these settings have it."""
    here = ELSEWHERE.get(given.removeprefix("--").replace("-", "_"), "")
    typed = {word for word in here.split() if word.startswith("--")}
    return f"; here it is {here}." if typed and typed <= set(every(cls)) else ""


def _nearest(given: str, known: Mapping[str, str]) -> str:
    """Offers flags that end alike, such as --optim.lr for --lr, else those that look alike."""
    ends = [name for name in known if name.rpartition(".")[2] == given.removeprefix("--") and "." in name]
    near = ends or difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f"; did you mean {' or '.join(near[:NEAR])}?" if near else "."

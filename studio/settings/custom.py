"""The last member of every union that others may extend: code of one's own, by its path. No torch.

Settings only name the code. `studio.catalog.outside` finds it, and only where it is used: reading settings, such as a
run's config.json, imports nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue
from tyro.constructors import PrimitiveConstructorSpec

from studio.errors import StudioError
from studio.settings.config import config


def _read(text: str) -> Any:
    """A value of JSON."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(word: str) -> float:
    raise StudioError(f"{word} is no finite number; give options that are finite.")


def _value(text: str) -> Any:
    try:
        return _read(text)
    except json.JSONDecodeError:
        return text


def _options(given: Sequence[str]) -> dict[str, Any]:
    """Arguments by name from what follows a flag: one table as JSON, or names and values in turn."""
    if len(given) == 1:
        try:
            found = _read(given[0])
        except json.JSONDecodeError:
            found = None
        if isinstance(found, dict):
            return found
    if len(given) % 2:
        raise StudioError(
            f"options were given as {' '.join(given)!r}; give them as JSON, such as '{{\"scale\": 2}}', or as names and "
            "values in turn, such as scale 2."
        )
    return {name: _value(text) for name, text in zip(given[::2], given[1::2], strict=True)}


Options = Annotated[
    dict[str, JsonValue],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="JSON|NAME VALUE ...",
        instance_from_str=_options,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [json.dumps(value)],
    ),
]
"""Arguments by name, of any kind that JSON has."""


@config
class Custom:
    """Yours: a class or function of your own."""

    path: Annotated[str, Field(min_length=1)]
    """`package.module:Name`, or `file.py:Name` for a file in the folder where the command is started."""
    options: Options = field(default_factory=dict[str, JsonValue])
    """Arguments of it, by name: as JSON, '{"scale": 2}', or in turn, scale 2."""

    def __hash__(self) -> int:
        """By path and options, so that what is made of it can be kept."""
        return hash((self.path, json.dumps(self.options, sort_keys=True)))

    def table(self) -> str:
        """As one of several is written on the command line: the path, or a table where there are options."""
        return json.dumps({"path": self.path, "options": self.options}) if self.options else self.path

    def spoken(self) -> str:
        """The path, with its options if there are any."""
        return f"{self.path} {json.dumps(self.options)}" if self.options else self.path


def _custom(given: Any) -> Custom:
    """One of several, from a path or a table."""
    if isinstance(given, Custom):
        return given
    if isinstance(given, str):
        return Custom(path=given)
    if isinstance(given, Mapping):
        return Custom(**{key: value for key, value in given.items() if key != "kind"})
    raise StudioError(f"{given!r} names no code; give a path, or a table with path and options.")


def _several(given: Any) -> tuple[Custom, ...]:
    if isinstance(given, (list, tuple)):
        return tuple(_custom(each) for each in given)
    raise StudioError(f"{given!r} is no list; give a list, such as ['my.py:name'].")


def _from_flags(given: Sequence[str]) -> tuple[Custom, ...]:
    """Paths, and tables with `path` and `options` as JSON."""
    return _several([_value(text) if text.startswith("{") else text for text in given])


if TYPE_CHECKING:
    Customs = tuple[Custom, ...]
    """Several, each as a path alone or as a table: `my.py:smile '{"path": "my.py:frown", "options": {"scale": 2}}'`."""
else:  # tyro compares defaults with types, and what a file holds is tables until all flags are read
    Customs = Annotated[
        Any,
        BeforeValidator(_several),
        PrimitiveConstructorSpec(
            nargs="*",
            metavar="PATH|JSON ...",
            instance_from_str=_from_flags,
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda value: [_custom(each).table() for each in value],
        ),
    ]


def by_name(several: Sequence[Custom]) -> dict[str, Custom]:
    """Each under the name that it has in tables: its path, with options where the path alone would not tell."""
    paths = [each.path for each in several]
    return {each.path if paths.count(each.path) == 1 else each.spoken(): each for each in several}

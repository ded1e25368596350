"""The `@config` decorator: classes of settings that are frozen, validated, and refused in one sentence.

Flags, help, JSON, YAML and the form in the app are all derived from these classes; the attribute docstring
is the help text. No torch here, so that a typo answers in under a second.
"""

import functools
from dataclasses import field
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from studio.errors import StudioError, invalid

T = TypeVar("T")
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def config(cls: type[T]) -> type[T]:
    """Make a class of settings: frozen, keyword-only, validated, finite; what is wrong is one `StudioError`."""
    rules = ConfigDict(extra="forbid", allow_inf_nan=False)
    made: Any = pydantic_dataclass(cls, frozen=True, kw_only=True, config=rules)
    build = made.__init__

    @functools.wraps(build)
    def checked(self: Any, *args: Any, **values: Any) -> None:
        try:
            try:
                build(self, *args, **values)
            except ValidationError as error:
                raise invalid(error) from None
        except StudioError as error:
            error.settings = error.settings or cls
            raise

    made.__init__ = checked
    return made

"""What a person can cause: one sentence with what was given, what is allowed and what to do."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class StudioError(Exception):
    """A person's mistake. The command prints the sentence without a traceback; the app shows it at the field.

    Args:
        message: One sentence: what was given, what is allowed, what to do.
        field: Dotted name of the setting at fault, such as ``optim.lr``; empty if there is none.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.settings: type | None = None
        """Class of settings that refused its values; `field` is one of its."""

    def inside(self, where: str) -> "StudioError":
        """The same error, its field named from one level further out."""
        field = ".".join(part for part in (where, self.field) if part)
        message = (
            str(self).replace(f"{self.field} was given", f"{field} was given", 1) if self.field else str(self)
        )
        return StudioError(message, field=field)


class RunFailed(StudioError):
    """A run that started and could not go on (exit code 1, not the person's mistake); its work is saved."""


def unknown(
    what: str, given: str, allowed: Iterable[str], *, field: str = "", also: Iterable[str] = ()
) -> StudioError:
    """The error for a name that does not exist: offers the nearest one and lists the rest; `also` are offered, not listed."""
    names = sorted(allowed)
    lower = {name.lower(): name for name in [*names, *also]}
    near = [lower[name] for name in difflib.get_close_matches(given.lower(), lower, n=1, cutoff=0.5)]
    hint = f"; did you mean {near[0]!r}?" if near else "."
    listed = ", ".join(names) if names else "none"
    return StudioError(f"Unknown {what} {given!r}{hint} Available: {listed}.", field=field)


def invalid(error: "ValidationError") -> StudioError:
    """Pydantic's findings as one sentence, one clause a field; of a field with alternatives, what each of them wants."""
    clauses: dict[str, list[str]] = {}
    fields: list[str] = []
    for item in error.errors():
        path = ".".join(str(p) for p in item["loc"] if isinstance(p, int) or p.isidentifier())
        fields.append(path)
        cause = item.get("ctx", {}).get("error")
        if cause:
            clauses[str(cause).rstrip(".")] = []
        elif item["type"] == "missing":
            clauses[f"{path} is required"] = []
        elif item["type"].startswith("unexpected"):
            clauses[f"{path} is not a setting"] = []
        elif item["type"] == "tuple_type":
            clauses[f"{path} was given as {item['input']!r}: give a list, such as [{item['input']!r}]"] = []
        else:
            wanted = f"{item['msg'][:1].lower()}{item['msg'][1:]}"
            clauses.setdefault(f"{path} was given as {item['input']!r}: ", []).append(wanted)
    said = (f"{clause}{', or '.join(dict.fromkeys(wanted))}" for clause, wanted in clauses.items())
    return StudioError("; ".join(said) + ".", field=fields[0] if fields else "")

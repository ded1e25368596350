"""Settings of a model's components, as files say them: read, and refused where they name code or say nothing. No torch."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LIBRARIES = ("diffusers", "transformers")
"""Where the components of a pipeline come from; code of others is not run because a file names it."""


def values(file: Path) -> dict[str, Any]:
    """The values of a JSON file; none where it cannot be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def settings_file(component: str) -> str:
    """Name of the file of a component's settings."""
    return "scheduler_config.json" if component == "scheduler" else "config.json"


def refusal(folder: Path, part: str, library: str) -> str:
    """Why a component cannot be trusted or read; empty if nothing speaks against it.

    Args:
        folder: Of the pipeline.
        part: Name of the component, as the index has it.
        library: Where its class comes from, as the index has it.
    """
    if not part.isidentifier():
        return f"it lists {part!r}, which is no name of a part"
    if library not in LIBRARIES:
        return f"its {part} is code of {library!r}, and only parts of {' and '.join(LIBRARIES)} are loaded"
    file = folder / part / settings_file(part)
    if not file.is_file():
        return ""
    if not (own := values(file)):
        return f"{part}/{file.name} is damaged"
    named = next(_kernels(own), "")
    return (
        f"{part}/{file.name} asks for attention by the code of {named!r}, which is not run" if named else ""
    )


def _kernels(own: Any, *, asked: bool = False) -> Iterator[str]:
    """Repositories of code that settings ask for: transformers would fetch and run it."""
    if isinstance(own, Mapping):
        for name, value in own.items():
            yield from _kernels(
                value, asked=asked or str(name).endswith(("_implementation", "_implementation_internal"))
            )
    elif isinstance(own, list):
        for value in own:
            yield from _kernels(value, asked=asked)
    elif asked and isinstance(own, str) and "/" in own:
        yield own

"""Names in sentences."""

from collections.abc import Sequence

from studio.backend.rng import Rng
from studio.data.sticker_captions import with_article
from studio.errors import StudioError


def sentence(template: str, name: str) -> str:
    """A template filled: {name} is the name, {a name} the name with its article, such as "an apple".

    Raises:
        StudioError: The template has no place for the name.
    """
    if "{name}" not in template and "{a name}" not in template:
        raise StudioError(
            f"The template {template!r} has no place for the name; write {{name}} or {{a name}} in it.",
            field="templates",
        )
    spoken = name.replace("_", " ")
    return template.replace("{a name}", with_article(spoken)).replace("{name}", spoken)


def sentences(templates: Sequence[str], names: Sequence[str]) -> list[str]:
    """Every name in every template, template by template."""
    if not templates:
        raise StudioError("There are no templates; give at least one, such as '{a name}'.", field="templates")
    return [sentence(template, name) for template in templates for name in names]


def drawn(templates: Sequence[str], classes: Sequence[str], labels: Sequence[int], rng: Rng) -> list[str]:
    """A random sentence about each label's class (FLYP, arXiv 2212.00638, section 3)."""
    places: list[int] = rng.integers(0, len(templates), len(labels)).tolist()
    return [sentence(templates[t], classes[k]) for t, k in zip(places, labels, strict=True)]

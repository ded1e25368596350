"""Captions of sticker scenes: varied templates around an object, a style and a background."""

from dataclasses import dataclass

_WITHOUT_ARTICLE = frozenset(
    [
        "grapes",
        "cherries",
        "blueberries",
        "peanuts",
        "pancakes",
        "fries",
        "popcorn",
        "butter",
        "bacon",
        "garlic",
        "spaghetti",
        "sushi",
        "broccoli",
        "lettuce",
        "corn",
        "milk",
        "coffee",
        "beer",
        "soda",
        "glasses",
        "sunglasses",
        "goggles",
        "jeans",
        "gloves",
        "socks",
        "headphones",
        "scissors",
        "soap",
        "yarn",
        "fire",
        "poo",
        "bread",
        "cheese",
        "salad",
        "pudding",
        "maracas",
        "bowling",
        "badminton",
    ]
)
_TEMPLATES = (
    (0.50, "a sticker of {object} on {background}"),
    (0.72, "a {style} sticker of {object} on {background}"),
    (0.79, "{object} on {background}"),
    (0.85, "{object}, {style} style, {background}"),
    (0.90, "a picture of {object} on {background}"),
    (0.95, "a sticker of {object}"),
    (1.00, "a {style} sticker of {object}"),
)


@dataclass(frozen=True, kw_only=True)
class CaptionParts:
    """What a caption may tell of a scene."""

    name: str
    group: str
    style: str
    background: str
    place: str
    """ "" for the middle, else "small" or a corner such as "top left"."""


def with_article(noun: str) -> str:
    """The noun as a caption says it: "a fox", "an apple", "grapes"."""
    if noun.rsplit(maxsplit=1)[-1] in _WITHOUT_ARTICLE:
        return noun
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def write_caption(parts: CaptionParts, template: float, group_word: float, group_share: float) -> str:
    """One caption; `template` and `group_word` are uniform numbers in [0, 1)."""
    noun = parts.group if group_word < group_share else parts.name
    described = f"small {noun}" if parts.place == "small" else noun
    subject = with_article(described)
    if parts.place not in {"", "small"}:
        subject = f"{subject} in the {parts.place} corner"
    text = next(text for bound, text in _TEMPLATES if template < bound)
    return text.format(object=subject, style=parts.style, background=parts.background)

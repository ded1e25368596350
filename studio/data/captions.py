"""What a caption becomes: slots filled, wildcards chosen, tags shuffled, sometimes dropped.

Order: slots `{token}` and `{class}`, then wildcards `{one|two}`, then the shuffle, then dropout.
"""

import re
from dataclasses import dataclass

import torch

from studio.data.config import Captions

_WILDCARD = re.compile(r"\{([^{}]*\|[^{}]*)\}")


@dataclass(frozen=True)
class Words:
    """What a method says of its pictures: a caption for those that have none, and what fills the slots.

    A token or class given here goes before one found in a folder's name.
    """

    template: str = ""
    token: str = ""
    class_name: str = ""


def fill(caption: str, token: str, class_name: str) -> str:
    """Put the token and the class into their slots; an empty word leaves no double space."""
    filled = caption.replace("{token}", token).replace("{class}", class_name)
    return " ".join(filled.split()) if filled != caption else caption


def choose(caption: str, generator: torch.Generator) -> str:
    """Replace each `{one|two}`, innermost first, by one of its choices, all equally likely."""
    while match := _WILDCARD.search(caption):
        options = match[1].split("|")
        pick = int(torch.randint(len(options), (), generator=generator))
        caption = caption[: match.start()] + options[pick].strip() + caption[match.end() :]
    return caption


def shuffle(caption: str, keep: int, generator: torch.Generator) -> str:
    """Shuffle comma-separated tags behind the first `keep` ones."""
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    kept, rest = tags[:keep], tags[keep:]
    order = torch.randperm(len(rest), generator=generator).tolist()
    return ", ".join(kept + [rest[index] for index in order])


def vary(caption: str, settings: Captions, generator: torch.Generator) -> str:
    """One variant of a caption whose slots are filled."""
    if float(torch.rand((), generator=generator)) < settings.dropout:
        return ""
    if settings.wildcards:
        caption = choose(caption, generator)
    return shuffle(caption, settings.keep, generator) if settings.shuffle else caption


def is_fixed(settings: Captions) -> bool:
    """Whether a caption without wildcards always stays what it is."""
    return settings.dropout == 0 and not settings.shuffle

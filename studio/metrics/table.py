"""The table of an evaluation: what each score is called, what it says, and its numbers. No torch."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from studio.metrics.statistics import Estimate


@dataclass(frozen=True)
class Meaning:
    """How a score is told to a person."""

    label: str
    better: Literal["higher", "lower"]
    explanation: str
    digits: int = 3


MEANINGS: Mapping[str, Meaning] = {
    "likeness": Meaning(
        "Looks like the subject",
        "higher",
        "Mean cosine between drawn pictures and the subject's photos, seen by a network that none of the "
        "models was trained with. 1 is the same picture.",
    ),
    "clip_likeness": Meaning(
        "Looks like the subject (CLIP)",
        "higher",
        "The same by the image side of CLIP, known as CLIP-I.",
    ),
    "target_likeness": Meaning(
        "Looks like the true picture",
        "higher",
        "Cosine between a drawn picture and the true picture of the same prompt, which training never saw.",
    ),
    "pixel_distance": Meaning(
        "Distance to the true picture",
        "lower",
        "Mean absolute difference in color levels (0 to 255), pixel by pixel.",
        1,
    ),
    "prompt_fit": Meaning(
        "Follows the prompt",
        "higher",
        "Cosine between picture and prompt by CLIP, known as CLIP-T, with the subject's token left out.",
    ),
    "background": Meaning(
        "Background as asked",
        "higher",
        "Part of the pictures whose corners have the plain color that the prompt names.",
        2,
    ),
    "diversity": Meaning(
        "Variety",
        "higher",
        "How different the pictures of one prompt are from each other; 0 means copies.",
    ),
    "prior_leak": Meaning(
        "Class turned into the subject",
        "lower",
        "How much pictures of the plain class, without the token, look like the subject (PRES). It should stay.",
    ),
    "prior_drift": Meaning(
        "Class changed",
        "lower",
        "1 minus the cosine between pictures of the plain class before and after training, same seeds. "
        "0 means that nothing was forgotten.",
    ),
    "prior_fit": Meaning(
        "Still draws the class",
        "higher",
        "Cosine between pictures of the plain class and its prompt by CLIP.",
    ),
}


@dataclass(frozen=True)
class Row:
    """One score: of the base model, of the trained one, and the paired change."""

    name: str
    tuned: Estimate
    base: Estimate | None = None
    change: Estimate | None = None
    ceiling: float | None = None
    """What true pictures score."""

    @property
    def meaning(self) -> Meaning:
        """How the score is told to a person."""
        return MEANINGS.get(self.name) or Meaning(self.name, "higher", "A score of your own.")

    @property
    def verdict(self) -> Literal["better", "worse", "even"]:
        """Whether the change is larger than two standard errors, and in which direction."""
        if self.change is None or abs(self.change.mean) <= 2 * self.change.se or not self.change.mean:
            return "even"
        return "better" if (self.change.mean > 0) == (self.meaning.better == "higher") else "worse"


def number(estimate: Estimate | None, digits: int, *, signed: bool = False) -> str:
    """A mean with its standard error as text; a dash if there is none."""
    if estimate is None:
        return "-"
    error = f" ± {estimate.se:.{digits}f}" if estimate.n > 1 else ""
    return f"{estimate.mean:{'+' if signed else ''}.{digits}f}{error}"


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """The table as text: score, base, trained, change, what true pictures score."""
    return [
        [
            f"{row.meaning.label} {'↑' if row.meaning.better == 'higher' else '↓'}",
            number(row.base, row.meaning.digits),
            number(row.tuned, row.meaning.digits),
            number(row.change, row.meaning.digits, signed=True),
            "-" if row.ceiling is None else f"{row.ceiling:.{row.meaning.digits}f}",
        ]
        for row in rows
    ]


HEADER = ["score", "base", "trained", "change", "true pictures"]


def to_dict(rows: Sequence[Row]) -> dict[str, Any]:
    """The table as plain values for JSON."""
    return {row.name: {"better": row.meaning.better} | dataclasses.asdict(row) for row in rows}


def from_dict(values: Mapping[str, Any]) -> list[Row]:
    """What `to_dict` gave, as a table again."""

    def read(estimate: Mapping[str, Any] | None) -> Estimate | None:
        return None if estimate is None else Estimate(**estimate)

    return [
        Row(name, Estimate(**v["tuned"]), read(v["base"]), read(v["change"]), v["ceiling"])
        for name, v in values.items()
    ]

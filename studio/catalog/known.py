"""What is known of a model before anything of it is loaded. No torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from studio.catalog import families
from studio.catalog.family import FamilyCard, Variant
from studio.errors import unknown
from studio.settings.sampling import Parts

Kind = Literal["embedded", "tiny", "published", "folder", "file", "unknown"]
Kinds = Literal["", "epsilon", "v_prediction", "flow"]


@dataclass(frozen=True)
class Known:
    """What is known of a model.

    Attributes:
        kind: embedded or tiny (small models of this project), published (a short name or a repository of a card), folder, file.
        card: Its family, if that can be told.
        variant: The published model that it is or was made from, as far as its settings tell.
        why: What told it.
        path: The file, or the folder of the pipeline.
        others: Names of the variants that fit as well: with some, the variant is the likeliest of several.
        prediction: What its denoiser predicts, in diffusers' words; empty where nothing tells.
        zero_snr: Whether it says that it was trained with zero terminal SNR.
        starts: Networks that are there; in a file, what their keys begin with.
        lacks: Networks that are not there and that its family needs.
        weights: What the names of its weight files have before their ending, such as `fp16`.
        pixels: Side of its training pictures, where a file says it; else 0.
        notes: What is worth telling when it is loaded.
        refusal: Why it cannot be loaded, in one sentence; empty if nothing speaks against it.
    """

    kind: Kind
    card: FamilyCard | None = None
    variant: Variant | None = None
    why: str = ""
    path: Path | None = None
    others: tuple[str, ...] = ()
    prediction: Kinds = ""
    zero_snr: bool = False
    starts: Mapping[str, str] = field(default_factory=dict[str, str])
    lacks: tuple[str, ...] = ()
    weights: str = ""
    pixels: int = 0
    notes: tuple[str, ...] = ()
    refusal: str = ""

    @property
    def small(self) -> bool:
        """Whether it is a small model of this project."""
        return self.kind in ("embedded", "tiny")

    @property
    def sure(self) -> bool:
        """Whether the variant is told, and not the likeliest of several."""
        return not self.others

    @property
    def taken_for(self) -> str:
        """Which published model it is taken for and why, or what would say so where that is a guess; empty for none."""
        if self.variant is None:
            return ""
        name = f"{self.variant.title} ({self.variant.name})"
        if self.sure:
            return f"{name}, told by {self.why}"
        return (
            f"{name}, a guess: {self.why} fit {', '.join(self.others)} too; --parts.variant says which it is"
        )

    def _kin(self, card: FamilyCard) -> Iterator[tuple[FamilyCard, Variant]]:
        """Published models that it can be: its family's, and for a denoiser in one file those with the same keys."""
        for other, variant in families.variants():
            same = card.name in other.recognize.kin and not other.recognize.keys
            if other is card or (self.kind == "file" and same):
                yield other, variant

    def told(self, parts: Parts) -> "Known":
        """The same with what a person said of it.

        Raises:
            StudioError: Its family has no such variant, or predicts otherwise.
        """
        found = self
        if parts.variant and self.card:
            fitting = {variant.name: (card, variant) for card, variant in self._kin(self.card)}
            named = families.by_name(parts.variant)
            if named is None or named[1].name not in fitting:
                raise unknown(
                    f"variant of {self.card.title}", parts.variant, list(fitting), field="parts.variant"
                )
            card, chosen = fitting[named[1].name]
            why = f"{self.why}; the variant as given"
            found = replace(found, card=card, variant=chosen, others=(), why=why)
        if parts.prediction and self.card:
            if self.card.process == "flow":
                raise unknown(
                    f"prediction of {self.card.title}", parts.prediction, ["flow"], field="parts.prediction"
                )
            found = replace(found, prediction=parts.prediction)
        return found

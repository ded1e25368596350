"""DECOR: Decomposition and Projection of Text Embeddings for Text-to-Image Customization.

Jang, Kim, Park, Kim, Lee, Jeong 2024, arXiv 2412.09169.

    X~ = U~ S~ V~^T,   P = V~_r V~_r^T,   X' = X - alpha X P

X are the rows of the prompt's embedding, X~ those of the undesired words, encoded by the same encoders in the same
state (a text-encoder LoRA included). Only the prompt is edited, not the negative one.

Departures: the begin token is never edited; several carrier prompts give X~; protected words (an extension).
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.contracts.sampling import PlainEdit
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.text import BOS, EOS, PAD, WORD
from trainers.decor.config import Decor
from trainers.decor.projection import directions, overlap, without
from trainers.decor.projector import Projector, load_projector

log = logging.getLogger(__name__)
_STOP = frozenset([
    "a", "an", "the", "of", "on", "in", "at", "with", "and", "or", "to", "from", "by", "for",
    "is", "are", "my", "its", "his", "her", "photo", "picture", "image",
])  # fmt: skip
SHARED = 0.6
"""Share of the captions that must say a word for it to be suggested."""


def suggest_undesired(captions: Sequence[str], prompt: str) -> list[str]:
    """Words that most training captions share and a new prompt does not have: what is likely to leak."""
    counts = Counter(word for caption in captions for word in set(_words(caption)))
    wanted = set(_words(prompt)) | _STOP
    return sorted(
        word for word, count in counts.items() if count >= SHARED * len(captions) and word not in wanted
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z][a-z'-]+", text.lower())


class DecorEdit(PlainEdit):
    """Projects the undesired words out of the condition of each prompt.

    Attributes:
        residual: After sampling: what is left of each prompt's rows, ||X'|| / ||X||, by prompt.
    """

    def __init__(self, settings: Decor, family: Family) -> None:
        self.settings, self._family = settings, family
        self.residual: list[float] = []

    @override
    def condition(self, cond: Condition) -> Condition:
        """The condition without the undesired directions."""
        settings = self.settings
        if settings.strength == 0 or not (settings.undesired or settings.saved):
            return cond
        found = self.projector()
        self._check(found, cond.tokens.shape[-1])
        words = cond.extra["kinds"] == WORD
        for block, v in zip(found.slices(), found.blocks, strict=True):
            self._warn(cond.tokens[..., block][words], v.to(cond.tokens.device))
        tokens = found(cond.tokens, self._edited(cond.extra["kinds"]), settings.strength)
        self.residual = (tokens.float().norm(dim=(1, 2)) / cond.tokens.float().norm(dim=(1, 2))).tolist()
        log.info("DECOR leaves %s of the embedding", ", ".join(f"{r:.0%}" for r in self.residual))
        return Condition(tokens, cond.pooled, cond.extra)

    def blocks(self, width: int) -> list[slice]:
        """Parts of a row that come from different encoders side by side (SDXL); one part for the others."""
        sizes = [int(e.config.hidden_size) for e in self._family.clip_encoders.values()]
        if len(sizes) < 2 or sum(sizes) != width:
            return [slice(0, width)]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]

    def projector(self) -> Projector:
        """The directions of the undesired words, or the saved ones."""
        if self.settings.saved:
            return load_projector(Path(self.settings.saved).expanduser())
        rows = self._rows(self.settings.undesired)
        kept = self._rows(self.settings.protect) if self.settings.protect else rows[:0]
        found = tuple(
            directions(
                without(rows[:, block], kept[:, block]),
                max_rank=self.settings.max_rank,
                energy=self.settings.energy,
            )
            for block in self.blocks(rows.shape[-1])
        )
        return Projector(found, self.settings.undesired, self._encoders())

    def _encoders(self) -> str:
        return self._family.fingerprint(*self._family.text_encoders)

    def _check(self, found: Projector, width: int) -> None:
        wide = sum(len(v) for v in found.blocks)
        if wide != width:
            raise StudioError(
                f"The projector has rows of width {wide}, those of {self._family.name} have {width}; it was made for "
                "another model.",
                field="saved",
            )
        if found.encoders != self._encoders():
            log.warning(
                "The projector was made with other text encoders; its directions may mean something else."
            )

    def _rows(self, words: Sequence[str]) -> Float[Tensor, "k d"]:
        """Embedding rows of words in their carriers."""
        found: list[Tensor] = []
        for carrier in self.settings.carriers:
            if "{}" not in carrier:
                raise StudioError(
                    f"Carrier {carrier!r} has no place for the word; write {{}} into it.", field="carriers"
                )
            before = carrier.split("{}")[0].strip()
            with torch.no_grad():
                full = self._family.embed([carrier.format(word) for word in words])
                start = self._family.embed([before])
            for row, kinds in zip(full.tokens, full.extra["kinds"], strict=True):
                found.append(row[self._of_word(kinds, start.extra["kinds"][0])])
        return torch.cat(found)

    def _of_word(self, kinds: Int[Tensor, " l"], before: Int[Tensor, " m"]) -> Bool[Tensor, " l"]:
        """Rows of the words that come after a carrier's beginning, in each encoder's part of the row."""
        first, begun = (int((one != PAD).int().argmax()) for one in (kinds, before))  # some pad on the left
        length = max(len(kinds), len(before))
        aligned = F.pad(before, (0, length - len(before)), value=PAD).roll(first - begun)[: len(kinds)]
        mask = (kinds == WORD) & (aligned != WORD)
        return mask | ((kinds == EOS) if self.settings.end_row else torch.zeros_like(mask))

    def _edited(self, kinds: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        match self.settings.rows:
            case "all":
                return kinds != BOS
            case "words":
                return kinds == WORD
            case "pad":
                return (kinds == PAD) | (kinds == EOS)

    def _warn(self, words: Float[Tensor, "p d"], v: Float[Tensor, "d r"]) -> None:
        inside = float(overlap(words, v).max()) if len(words) and v.shape[1] else 0.0
        if inside > self.settings.warn_overlap:
            log.warning(
                "DECOR: the undesired words share %.0f %% of a word of the prompt, which will suffer; lower the "
                "strength or max_rank, or name the word in protect.",
                100 * inside,
            )

"""How good captions are: does a retriever find the picture by them, and are they still captions?

Retrieval alone can be cheated by lists of words. So the objects and backgrounds that are named right, the length, the
share of different words and word pairs, and the perplexity under the captioner at the start stand beside it. Axes: `b`
captions and their pictures, `d` features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from studio.data import sticker_backgrounds as backgrounds
from studio.data.sticker_concepts import COLORS
from studio.data.sticker_config import Stickers
from studio.data.stickers import Scenes, draw_scenes, index
from studio.models.captioner import Captioner, Writer
from studio.rl.text import caption_logp, distinct

ON_CPU = torch.zeros(())
SEED = 20_230_401
"""Scenes of an exam; training draws from other seeds."""


@runtime_checkable
class Retriever(Protocol):
    """Puts pictures and texts into one space, unit length."""

    def images(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Features of pictures in [-1, 1]."""
        ...

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "b d"]:
        """Features of texts."""
        ...


@dataclass(frozen=True)
class Exam:
    """Scenes, and the features by which each retriever looks for them among so many candidates."""

    scenes: Scenes
    retrievers: Mapping[str, Retriever]
    seen: Mapping[str, Float[Tensor, "b d"]]
    candidates: int

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        settings: Stickers,
        retrievers: Mapping[str, Retriever],
        *,
        candidates: int,
        rounds: int = 1,
        held_out: bool = False,
        like: Tensor = ON_CPU,
    ) -> "Exam":
        """Draw `rounds` lots of `candidates` scenes; with `held_out` of pairs that training never shows.

        `like` is on the device and in the precision in which the retrievers take pictures.
        """
        generator = torch.Generator().manual_seed(SEED)
        scenes = draw_scenes(settings, candidates * rounds, generator, held_out=held_out)
        seen = {
            name: torch.cat([one.images(part.to(like)).float() for part in scenes.images.split(64)])
            for name, one in retrievers.items()
        }
        return cls(scenes, retrievers, seen, candidates)

    @torch.no_grad()
    def retrieval(self, name: str, texts: Sequence[str]) -> float:
        """Share of captions by which a retriever finds their picture first (P@1)."""
        features = self.retrievers[name].texts(texts).float()
        hits: list[Tensor] = []
        for part, seen in zip(
            features.split(self.candidates), self.seen[name].split(self.candidates), strict=True
        ):
            best = (part @ seen.mT).argmax(1)
            hits.append(best == torch.arange(len(part), device=best.device))
        return float(torch.cat(hits).float().mean())

    def named(self, texts: Sequence[str]) -> dict[str, float]:
        """Share of captions that name the object, and the background, as the scene has it."""
        objects = [index()[concept]["name"] for concept in self.scenes.concepts.tolist()]
        names = list(COLORS)
        behind = [
            backgrounds.phrase(backgrounds.KINDS[kind], names[first], names[second])
            for kind, (first, second) in zip(
                self.scenes.kinds.tolist(), self.scenes.colors.tolist(), strict=True
            )
        ]
        return {
            "object named": _share(objects, texts),
            "background named": _share(behind, texts),
        }


def _share(wanted: Sequence[str], texts: Sequence[str]) -> float:
    hits = [f" {want} " in f" {text.replace(',', ' ')} " for want, text in zip(wanted, texts, strict=True)]
    return sum(hits) / len(hits)


@torch.no_grad()
def perplexity(
    model: Captioner, initial: Writer, images: Float[Tensor, "b c h w"], texts: Sequence[str]
) -> float:
    """Perplexity a token of captions under the captioner at the start, given their pictures."""
    total, count = 0.0, 0
    for start in range(0, len(texts), 64):
        tokens, mask = model.encode(texts[start : start + 64])
        patches = model.see(images[start : start + 64])
        logits = initial(patches, tokens, model.start)
        total -= float(caption_logp(logits, tokens, mask).sum())
        count += int(mask.sum())
    return float(torch.tensor(total / count).exp())


def appraise(exam: Exam, model: Captioner, initial: Writer, texts: Sequence[str]) -> dict[str, float]:
    """All scores of captions of the exam's scenes."""
    return {
        **{name: exam.retrieval(name, texts) for name in exam.retrievers},
        **exam.named(texts),
        "words": sum(len(text.split()) for text in texts) / len(texts),
        "distinct 1-grams": distinct(texts, 1),
        "distinct 2-grams": distinct(texts, 2),
        "perplexity at the start": perplexity(model, initial, exam.scenes.images, texts),
    }

"""All scores of one subject's pictures: the same during training and in an evaluation.

Axes: `b` pictures, prompt-major: all pictures of the first prompt, then of the second.
"""

import math
from collections.abc import Mapping, Sequence

from PIL.Image import Image

from studio.errors import StudioError
from studio.metrics.build import Evidence, Jury
from studio.metrics.config import (
    Judges,
    Likeness,
    PixelCloseness,
    PromptFit,
    TargetLikeness,
)
from studio.metrics.scorers import BackgroundScore, Score
from studio.metrics.statistics import estimate
from studio.settings.custom import by_name

Numbers = list[float | None]
Values = dict[str, Numbers]
"""Score to one number a picture, None where a picture has none (no target, no named background)."""


class SubjectScorer:
    """Scores pictures of one subject.

    Args:
        jury: Judges, loaded once.
        judges: Which of them to ask.
        evidence: References, targets by prompt, named colors, and the token that text judges should not read.
    """

    def __init__(self, jury: Jury, judges: Judges, evidence: Evidence) -> None:
        self._evidence = evidence
        self._everywhere = {"likeness": jury.scorer(Likeness(backbone=judges.likeness), evidence)}
        if text := jury.text_of(judges):
            self._everywhere |= {
                "clip_likeness": jury.scorer(Likeness(backbone=text), evidence),
                "prompt_fit": jury.scorer(PromptFit(backbone=text), evidence),
            }
        own = by_name(judges.custom)
        self._everywhere |= {name: jury.scorer(custom, evidence) for name, custom in own.items()}
        self._target = jury.scorer(TargetLikeness(backbone=judges.likeness), evidence)
        self._closeness = jury.scorer(PixelCloseness(), evidence)
        self._background = BackgroundScore(evidence.colors)
        self._spread = jury.diversity(judges.diversity)

    def each(self, images: Sequence[Image], prompts: Sequence[str]) -> Values:
        """Scores of every picture, each with its own prompt (the pixel distance is positive)."""
        values: Values = {name: score(images, prompts).tolist() for name, score in self._everywhere.items()}
        has_target = [prompt in self._evidence.targets for prompt in prompts]
        values["target_likeness"] = _where(has_target, images, prompts, self._target)
        closeness = _where(has_target, images, prompts, self._closeness)
        values["pixel_distance"] = [None if value is None else -value for value in closeness]
        asked = [bool(self._background.asked(prompt)) for prompt in prompts]
        values["background"] = _where(asked, images, prompts, self._background)
        return {name: numbers for name, numbers in values.items() if any(n is not None for n in numbers)}

    def diversity(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """How different the pictures of each prompt are; empty if there is one a prompt."""
        groups = [[i for i, p in zip(images, prompts, strict=True) if p == q] for q in dict.fromkeys(prompts)]
        return [self._spread(group) for group in groups if len(group) > 1]


def _where(mask: Sequence[bool], images: Sequence[Image], prompts: Sequence[str], score: Score) -> Numbers:
    """Scores where the mask says so, None elsewhere."""
    places = [i for i, yes in enumerate(mask) if yes]
    found: Numbers = [None] * len(mask)
    if places:
        scores = score([images[i] for i in places], [prompts[i] for i in places])
        for place, value in zip(places, scores.tolist(), strict=True):
            found[place] = value
    return found


def quality(scores: Mapping[str, float]) -> float:
    """One number that names the best checkpoint: the geometric mean of likeness and prompt fit.

    An overfitted subject gains likeness and loses the prompt, an undertrained one the other way round. The
    geometric mean counts relative changes of both alike, although cosines of pictures and of texts have very
    different sizes. Without a judge of texts, the background stands for the prompt; without that, likeness is all.
    """
    follows = next(
        (scores[name] for name in ("prompt_fit", "background") if name in scores), scores["likeness"]
    )
    return math.sqrt(max(0.0, scores["likeness"]) * max(0.0, follows))


def subject_scores(
    images: Sequence[Image],
    references: Sequence[Image],
    prompts: Sequence[str],
    *,
    jury: Jury,
    judges: Judges = Judges(),
    evidence: Evidence = Evidence(),
) -> dict[str, float]:
    """Means of all scores, and `quality`, which names the best checkpoint.

    Args:
        images: Drawn pictures, prompt-major.
        references: Pictures of the subject, best ones that training does not see.
        prompts: One a picture, or one for every `len(images) / len(prompts)` pictures.
        jury: Judges; keep one for the whole run, it remembers the references' features.
        judges: Which of them to ask.
        evidence: Targets, colors and silent words; its references are replaced by `references`.

    Raises:
        StudioError: There are no references, or the numbers of pictures and prompts do not match.
    """
    if not prompts or len(images) % len(prompts):
        raise StudioError(
            f"{len(images)} pictures cannot belong to {len(prompts)} prompts; give each prompt as many."
        )
    each = [prompt for prompt in prompts for _ in range(len(images) // len(prompts))]
    known = Evidence(
        references=references, targets=evidence.targets, colors=evidence.colors, silent=evidence.silent
    )
    scorer = SubjectScorer(jury, judges, known)
    values = scorer.each(images, each)
    means = {name: estimate(v for v in numbers if v is not None).mean for name, numbers in values.items()}
    spread = scorer.diversity(images, each)
    if spread:
        means["diversity"] = estimate(spread).mean
    return means | {"quality": quality(means)}

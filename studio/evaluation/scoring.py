"""Scores of an exam: the pictures of two models become a table of paired changes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL.Image import Image

from studio.data import images as reading
from studio.data.sticker_concepts import COLORS
from studio.evaluation.exam import Exam
from studio.metrics import table
from studio.metrics.build import Evidence, Jury
from studio.metrics.config import PromptFit, SubjectEval
from studio.metrics.features import Judge
from studio.metrics.statistics import estimate, paired
from studio.metrics.subject import SubjectScorer, Values
from studio.metrics.table import Row
from studio.settings.custom import by_name

SAME = 1e-4
"""Two pictures whose cosine is this close to 1 are one picture."""


@dataclass(frozen=True)
class Drawn:
    """Pictures of one model, prompt-major: of the subject, and of the plain class."""

    subject: Sequence[Image]
    plain: Sequence[Image]


class Scoring:
    """Turns the pictures of two models into the table of an exam."""

    def __init__(self, request: SubjectEval, asked: Exam, jury: Jury) -> None:
        self._request, self._asked, self._jury = request, asked, jury
        self.references = [reading.read(path).rgb for path in asked.references]
        self.targets = {prompt: reading.read(path).rgb for prompt, path in asked.targets.items()}
        evidence = Evidence(
            references=self.references, targets=self.targets, colors=COLORS, silent=[asked.token]
        )
        self._scorer = SubjectScorer(jury, request.judges, evidence)
        self._text = jury.text_of(request.judges)
        self._fit = jury.scorer(PromptFit(backbone=self._text), evidence) if self._text else None
        self.values: dict[str, Values] = {}

    @property
    def judges(self) -> str:
        """Names of the models that judge."""
        pictures = f"{self._jury.judge(self._request.judges.likeness).name} (pictures)"
        return f"{pictures} and {self._jury.text_judge(self._text).name} (texts)" if self._text else pictures

    def table(self, base: Drawn, tuned: Drawn) -> list[Row]:
        """All scores of both, and their paired changes."""
        before, after = self._each(base), self._each(tuned)
        after["prior_drift"] = self._drift(base.plain, tuned.plain)
        self.values = {"base": before, "trained": after}
        ceilings = self._ceilings()
        return [
            _row(name, before.get(name, []), after[name], ceilings.get(name))
            for name in (*table.MEANINGS, *by_name(self._request.judges.custom))
            if any(value is not None for value in after.get(name, []))
        ]

    def _each(self, images: Drawn) -> Values:
        """Every number about one model's pictures."""
        prompts = _repeated(self._asked.prompts, self._request.num_images)
        values = self._scorer.each(images.subject, prompts)
        values["diversity"] = list(self._scorer.diversity(images.subject, prompts))
        if images.plain:
            plain = _repeated(self._asked.class_prompts, self._request.num_images)
            values["prior_leak"] = self._scorer.each(images.plain, plain)["likeness"]
            if self._fit:
                values["prior_fit"] = list(self._fit(images.plain, plain).tolist())
        return values

    def _drift(self, before: Sequence[Image], after: Sequence[Image]) -> list[float | None]:
        """1 minus the cosine of pictures of the plain class with the same seed, before and after."""
        if not before:
            return []
        judge = self._jury.judge(self._request.judges.likeness)
        cosine = (judge.pictures(before) * judge.pictures(after)).sum(dim=1)
        return list((1 - cosine).clamp(min=0).tolist())

    def _ceilings(self) -> dict[str, float]:
        """What true pictures score."""
        found = self._likeness_of_truth("likeness", self._jury.judge(self._request.judges.likeness))
        if self._text:
            found |= self._likeness_of_truth("clip_likeness", self._jury.judge(self._text))
        if self.targets:
            truth = self._scorer.each(list(self.targets.values()), list(self.targets))
            own = by_name(self._request.judges.custom)
            found |= {n: _mean(truth[n]) for n in ("prompt_fit", "background", *own) if n in truth}
        return found

    def _likeness_of_truth(self, name: str, judge: Judge) -> dict[str, float]:
        """Likeness of true pictures (or else of the references) to the references that are other pictures."""
        cosine = (
            judge.pictures(list(self.targets.values()) or self.references) @ judge.pictures(self.references).T
        )
        others = cosine < 1 - SAME
        return {name: float(cosine[others].mean())} if others.any() else {}


def _mean(values: Iterable[float | None]) -> float:
    return estimate(value for value in values if value is not None).mean


def _row(
    name: str, before: Sequence[float | None], after: Sequence[float | None], ceiling: float | None
) -> Row:
    tuned = [value for value in after if value is not None]
    base = [value for value in before if value is not None]
    if not base:
        return Row(name, estimate(tuned), ceiling=ceiling)
    return Row(name, estimate(tuned), estimate(base), paired(base, tuned), ceiling)


def _repeated(prompts: Sequence[str], times: int) -> list[str]:
    return [prompt for prompt in prompts for _ in range(times)]

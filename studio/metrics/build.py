"""From settings to judges and scorers."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import torch
from PIL.Image import Image

from studio import assets
from studio.metrics import config as settings
from studio.metrics.backbones import EMBEDDED, load_clip, load_timm
from studio.metrics.features import Judge, TextJudge
from studio.metrics.own import OwnScore, OwnSpread, load_own
from studio.metrics.scorers import (
    BackgroundScore,
    Color,
    LikenessScore,
    PixelScore,
    PromptScore,
    Score,
    TargetScore,
)
from studio.metrics.sets import FeatureSpread, LpipsSpread, Spread
from studio.settings.custom import Custom

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What pictures are compared with."""

    references: Sequence[Image] = ()
    targets: Mapping[str, Image] = field(default_factory=dict)
    colors: Mapping[str, Color] = field(default_factory=dict)
    silent: Sequence[str] = ()
    """Words that judges of text should not read: the subject's token."""


class Jury:
    """Judges by their settings, each loaded once."""

    def __init__(self, device: torch.device | str, batch_size: int = 32) -> None:
        self._device, self._batch_size = device, batch_size
        self._judges: dict[settings.Backbone, Judge] = {}

    def judge(self, backbone: settings.Backbone) -> Judge:
        """The judge of pictures."""
        if backbone not in self._judges:
            self._judges[backbone] = self._load(backbone)
        return self._judges[backbone]

    def text_judge(self, backbone: settings.OpenClip) -> TextJudge:
        """The judge of pictures and texts."""
        if backbone not in self._judges:
            self._judges[backbone] = self._load_text(backbone)
        found = self._judges[backbone]
        if not isinstance(found, TextJudge):
            raise TypeError(f"{backbone} is not a judge of texts")
        return found

    def text_of(self, judges: settings.Judges) -> settings.OpenClip | None:
        """The judge of texts that was asked for; None for none, or, with a warning, if the embedded one is absent."""
        match judges.text:
            case settings.NoText():
                return None
            case settings.OpenClip(model=model) if model in EMBEDDED and not assets.exists(f"models/{model}"):
                log.warning(
                    "The embedded judge %s is absent; scores that read the prompt are left out.", model
                )
                return None
            case settings.OpenClip():
                return judges.text
            case _:
                assert_never(judges.text)

    def _load(self, backbone: settings.Backbone) -> Judge:
        match backbone:
            case settings.Timm():
                return Judge(load_timm(backbone.model, self._device), self._batch_size)
            case settings.OpenClip():
                return self._load_text(backbone)
            case Custom():
                return Judge(load_own(backbone, self._device), self._batch_size)
            case _:
                assert_never(backbone)

    def _load_text(self, backbone: settings.OpenClip) -> TextJudge:
        return TextJudge(load_clip(backbone.model, backbone.pretrained, self._device), self._batch_size)

    def scorer(self, scorer: settings.Scorer, evidence: Evidence) -> Score:
        """What gives one number a picture."""
        match scorer:
            case settings.Likeness():
                return LikenessScore(self.judge(scorer.backbone), evidence.references)
            case settings.TargetLikeness():
                return TargetScore(self.judge(scorer.backbone), evidence.targets)
            case settings.PixelCloseness():
                return PixelScore(evidence.targets)
            case settings.PromptFit():
                return PromptScore(self.text_judge(scorer.backbone), evidence.silent)
            case settings.BackgroundColor():
                return BackgroundScore(evidence.colors, scorer.patch)
            case Custom():
                return OwnScore(scorer, self._device, self._batch_size)
            case _:
                assert_never(scorer)

    def diversity(self, diversity: settings.Diversity) -> Spread:
        """What measures how different the pictures of one prompt are."""
        match diversity:
            case settings.FeatureDiversity():
                return FeatureSpread(self.judge(diversity.backbone))
            case settings.Lpips():
                return LpipsSpread(diversity.weights, self._device)
            case Custom():
                return OwnSpread(diversity, self._device)
            case _:
                assert_never(diversity)

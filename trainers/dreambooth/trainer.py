"""DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation.

Ruiz, Li, Jampani, Pritch, Rubinstein, Aberman, CVPR 2023, arXiv 2208.12242.

    L = E[ w_t ||x^(alpha_t x + sigma_t eps, c) - x||^2 ]
        + lambda E[ w_t' ||x^(alpha_t' x_pr + sigma_t' eps', c_pr) - x_pr||^2 ]        (eq. 2)

with c from `a [V] [class]` and c_pr from `a [class]`. Noise and time are independent in the two halves, and each
half is reduced to its own mean before they are added.

Departures: the target is what the family predicts (eps, v or flow), with its weighting, not x. LoRA and other
adapters are not in the paper. `OnlinePrior` replaces the class pictures by the base model's own prediction.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from studio.adapters.build import after_step, groups
from studio.adapters.metadata import Facts
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss, Trainer
from studio.data.cache import check_cache
from studio.data.encoders import texts_of
from studio.models.build import load
from studio.models.denoising import Prompts
from studio.models.draw import draw
from studio.models.modes import evaluating
from studio.same_subject.objective import subject_and_prior
from studio.same_subject.subject import Subject
from studio.weights import export as exporting
from studio.weights.assistant import assisted
from studio.weights.warm_start import attach_from
from trainers.dreambooth.config import DreamBooth


class DreamBoothTrainer(Trainer):
    """Subject loss plus prior preservation, on any family and with any adapter."""

    def __init__(self, config: DreamBooth) -> None:
        """Check what needs no model."""
        self.config = config
        check_cache(config.images, trains_text=config.text_encoder)

    @override
    def setup(self, backend: Backend) -> list[Group]:
        config = self.config
        self.family = assisted(
            load(config.model, backend, text=config.text, parts=config.parts), config.denoising
        )
        self.subject = Subject(config, self.family)
        self.trained = {self.family.denoiser_name: self.family.denoiser}
        if config.text_encoder:
            self.trained |= self.family.clip_encoders
        self.family.hold(*self.trained)
        attached = attach_from(config.start, config.adapter, self.family, self.trained)
        exporting.require_writable(self.family, self.trained, config.export)
        texts = texts_of(self.family, config.images)
        self.prompts_of = Prompts(self.family, trains=config.text_encoder, store=texts)
        found: list[Group] = []
        for key, module in self.trained.items():
            module.train()
            own = config.text_encoder_lr if key != self.family.denoiser_name else 0.0
            found += groups(config.adapter, key, module, attached[key], lr=own or None)
        return found

    @override
    def source(self) -> Source:
        found = self.subject.source()
        self.prompts_of.ready(self.subject.captions())
        return found

    @override
    def held_out(self) -> Source | None:
        return self.subject.held_out()

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Eq. 2: the mean over the subject half plus lambda times the mean over the class half."""
        terms = subject_and_prior(self.subject, batch, rng, embed=self.prompts_of, trained=self.trained)
        total = terms["loss_instance"]
        if "loss_prior" in terms:
            total = total + self.config.prior_weight * terms["loss_prior"]
        return Loss(total, terms)

    @override
    def after_step(self, step: int) -> None:
        after_step(self.trained)

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        with evaluating(*self.trained.values()):
            return Output(images=draw(self.family, self.subject.asked(request), rng))

    @override
    def score(self, output: Output, request: Request) -> dict[str, float]:
        """Likeness to the held-out pictures and fit to the prompts, of the prompts that name the subject."""
        return self.subject.score(output, request, self.backend.device)

    @override
    def prompts(self) -> Sequence[str]:
        return self.subject.prompts()

    @override
    def export(self, folder: Path) -> list[Path]:
        trigger = self.config.export.trigger or self.subject.phrase
        settings = dataclasses.replace(self.config.export, trigger=trigger)
        facts = Facts(base_model=self.config.model)
        written = exporting.export(self.family, self.trained, folder, settings=settings, facts=facts)
        return [one.path for one in written]

"""DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation.

Ruiz, Li, Jampani, Pritch, Rubinstein, Aberman, CVPR 2023, arXiv 2208.12242.

    L = E[ w_t ||x^(alpha_t x + sigma_t eps, c) - x||^2 ]
        + lambda E[ w_t' ||x^(alpha_t' x_pr + sigma_t' eps', c_pr) - x_pr||^2 ]        (eq. 2)

with c from "a [V] [class]" and c_pr from "a [class]". Noise and time are independent in the two halves, and each
half is reduced to its own mean before they are added.

Departures: the target is what the family predicts (eps, v or flow), with its weighting, not x. LoRA and other
adapters are not in the paper. `OnlinePrior` replaces the class pictures by the base model's own prediction.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from studio.adapters.build import after_step, groups
from studio.adapters.metadata import Facts
from studio.adapters.strength import detached
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss, Trainer
from studio.data.build import images, photos
from studio.data.cache import Encoder, check_cache
from studio.data.captions import Words, fill
from studio.data.images import read
from studio.data.latents import Latents
from studio.data.layouts import find
from studio.data.source import Photos
from studio.data.sticker_concepts import COLORS
from studio.errors import StudioError
from studio.metrics.build import Evidence, Jury
from studio.metrics.subject import subject_scores
from studio.models.build import load
from studio.models.denoising import Noised, Prompts, add_noise, errors, latents_of
from studio.models.draw import draw
from studio.models.modes import evaluating
from studio.same_subject.config import FolderPrior, GeneratedPrior, OnlinePrior
from studio.same_subject.identifier import pick_identifier
from studio.same_subject.prior import WithPrior, generate_prior, prior_folder
from studio.weights import export as exporting
from studio.weights.warm_start import attach_from
from trainers.dreambooth.config import DreamBooth


class DreamBoothTrainer(Trainer):
    """Subject loss plus prior preservation, on any family and with any adapter."""

    def __init__(self, config: DreamBooth) -> None:
        """Check what needs no model."""
        self.config = config
        self._jury: Jury | None = None
        check_cache(config.images, trains_text=config.text_encoder)

    @override
    def setup(self, backend: Backend) -> list[Group]:
        config = self.config
        self.family = load(config.model, backend)
        self.token = config.token or pick_identifier(self.family.tokenizers, seed=config.seed_of_token)
        self.class_prompt = fill(config.class_prompt, "", config.class_word)
        self._prior_folder = self._class_pictures()
        self.trained = {self.family.denoiser_name: self.family.denoiser}
        if config.text_encoder:
            self.trained |= self.family.clip_encoders
        attached = attach_from(config.start, config.adapter, self.family, self.trained)
        self.prompts_of = Prompts(self.family, trains=config.text_encoder)
        found: list[Group] = []
        for key, module in self.trained.items():
            module.train()
            own = config.text_encoder_lr if key != self.family.denoiser_name else 0.0
            found += groups(config.adapter, key, module, attached[key], lr=own or None)
        return found

    def _class_pictures(self) -> str:
        prior = self.config.prior
        if not self.config.prior_weight:
            return ""
        if isinstance(prior, GeneratedPrior):
            wanted = (self.family, self.class_prompt, prior, 0)
            if not prior_folder(*wanted).is_dir() and Path(self.config.data).expanduser().is_dir():
                found = photos(self.config.images, self.config.data, **self._reading(self.config.prompt))
                self._check_token(found)  # what is wrong is said before minutes of drawing
            return str(generate_prior(*wanted))
        return prior.folder if isinstance(prior, FolderPrior) else ""

    @override
    def source(self) -> Source:
        subject = self._pictures(self.config.data, self.config.prompt)
        self._check_token(subject.photos if isinstance(subject, Latents) else subject)
        if not self._prior_folder:
            return subject
        return WithPrior(subject, self._pictures(self._prior_folder, self.class_prompt))

    def _pictures(self, folder: str, template: str) -> Photos | Latents:
        encoder = Encoder(encode=self.family.encode, fingerprint=self.family.fingerprint("vae"))
        return images(self.config.images, folder, encoder=encoder, **self._reading(template))

    def _reading(self, template: str) -> dict[str, Any]:
        """What captions are made of, and what the model asks of a picture's sides."""
        words = Words(template=template, token=self.token, class_name=self.config.class_word)
        return {"words": words, "size": self.family.default_size, "multiple": self.family.size_multiple}

    def _check_token(self, found: Photos) -> None:
        """Captions that never say the token would teach it nothing."""
        captions = [example.caption for example in found.examples]
        if not any(self.token in c for c in captions):
            raise StudioError(
                f"No caption has the token {self.token!r} (such as {captions[0]!r}); write {{token}} {{class}} into the "
                "captions, or name with --token the word that they use.",
                field="token",
            )

    @override
    def held_out(self) -> Source | None:
        return self._pictures(self.config.held_out, self.config.prompt) if self.config.held_out else None

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Eq. 2: the mean over the subject half plus lambda times the mean over the class half."""
        settings, masks = self.config.denoising, batch.get("loss_mask")
        noised = add_noise(self.family, latents_of(self.family, batch, rng), rng, settings)
        if not self._has_prior(batch):
            prediction = self.family.predict(noised.x_t, noised.t, self.prompts_of(batch["captions"]))
            subject = errors(self.family, prediction, noised, settings, masks).mean()
            return Loss(subject, {"loss_instance": subject})
        class_half = self._class_half(batch, noised, rng)
        captions = [*batch["captions"], *[self.class_prompt] * len(class_half)]
        both = noised.cat(class_half)
        prediction = self.family.predict(both.x_t, both.t, self.prompts_of(captions))
        first, second = prediction[: len(noised)], prediction[len(noised) :]
        subject = errors(self.family, first, noised, settings, masks).mean()
        prior = errors(self.family, second, class_half, settings).mean()
        return Loss(
            subject + self.config.prior_weight * prior, {"loss_instance": subject, "loss_prior": prior}
        )

    def _has_prior(self, batch: Batch) -> bool:
        online = isinstance(self.config.prior, OnlinePrior) and self.config.prior_weight > 0
        return online or "prior_captions" in batch

    def _class_half(self, batch: Batch, noised: Noised, rng: Rng) -> Noised:
        if "prior_captions" in batch:
            return add_noise(
                self.family, latents_of(self.family, batch, rng, "prior_"), rng, self.config.denoising
            )
        with torch.no_grad(), detached(self.trained):
            cond = self.family.embed([self.class_prompt] * len(noised))
            target: Tensor = self.family.predict(noised.x_t, noised.t, cond)
        return dataclasses.replace(noised, target=target)

    @override
    def after_step(self, step: int) -> None:
        after_step(self.trained)

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        filled = [fill(p, self.token, self.config.class_word) for p in request.prompts]
        with evaluating(*self.trained.values()):
            return Output(images=draw(self.family, dataclasses.replace(request, prompts=filled), rng))

    @override
    def score(self, output: Output, request: Request) -> dict[str, float]:
        """Likeness to the held-out pictures and fit to the prompts, of the prompts that name the subject."""
        if not self.config.held_out:
            return {}
        per_prompt = request.num_images
        named = [i for i, prompt in enumerate(request.prompts) if self.token in prompt]
        pictures = [output.images[i * per_prompt + k] for i in named for k in range(per_prompt)]
        if not pictures:
            return {}
        references = [read(r.path).rgb for r in find(Path(self.config.held_out).expanduser()).records]
        evidence = Evidence(references=references, colors=COLORS, silent=[self.token])
        self._jury = self._jury or Jury(self.backend.device)
        return subject_scores(
            pictures, references, [request.prompts[i] for i in named], jury=self._jury, evidence=evidence
        )

    @override
    def prompts(self) -> Sequence[str]:
        return [fill(self.config.prompt, self.token, self.config.class_word), self.class_prompt]

    @override
    def export(self, folder: Path) -> list[Path]:
        trigger = self.config.export.trigger or f"{self.token} {self.config.class_word}"
        settings = dataclasses.replace(self.config.export, trigger=trigger)
        facts = Facts(base_model=self.config.model)
        written = exporting.export(self.family, self.trained, folder, settings=settings, facts=facts)
        return [one.path for one in written]

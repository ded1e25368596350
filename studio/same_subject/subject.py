"""A subject as a method that learns it needs it: its words, its pictures beside those of its class, and its likeness."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from studio.contracts.batch import Source
from studio.contracts.sampling import Output, Request
from studio.data.build import images, photos
from studio.data.captions import Words, fill, is_fixed
from studio.data.encoders import encoder_of
from studio.data.images import read
from studio.data.latents import Latents
from studio.data.layouts import find
from studio.data.source import Photos
from studio.data.sticker_concepts import COLORS
from studio.errors import StudioError
from studio.metrics.build import Evidence, Jury
from studio.metrics.subject import subject_scores
from studio.models.base import Family
from studio.same_subject.config import FolderPrior, GeneratedPrior, SubjectSettings
from studio.same_subject.identifier import pick_identifier
from studio.same_subject.prior import WithPrior, generate_prior, prior_folder


class Subject:
    """What is learned, for one model. Make it while the model is untouched: class pictures are drawn then.

    Attributes:
        token: The word that names it.
        class_prompt: Prompt of its class.
    """

    def __init__(self, settings: SubjectSettings, family: Family) -> None:
        """Choose the word; draw the class pictures if they are wanted and not there yet.

        Raises:
            StudioError: A picture cannot be used, or no caption names the subject.
        """
        self.settings, self.family = settings, family
        self.token = settings.token or pick_identifier(family.tokenizers, seed=settings.seed_of_token)
        self.class_prompt = fill(settings.class_prompt, "", settings.class_word)
        self._class_folder = self._class_pictures()
        self._jury: Jury | None = None
        self._said: list[str] = []

    @property
    def phrase(self) -> str:
        """What it is called in a prompt, such as `sks dog`."""
        return f"{self.token} {self.settings.class_word}"

    def source(self) -> Source:
        """Its pictures; with as many of its class beside them, under `prior_...`, where class pictures are wanted.

        Raises:
            StudioError: No caption names the subject.
        """
        own = self._pictures(self.settings.data, self.settings.prompt)
        pictures = own.photos if isinstance(own, Latents) else own
        self._check_token(pictures)
        if is_fixed(self.settings.images.captions):
            self._said = [each.caption for each in pictures.examples if "{" not in each.caption]
        if not self._class_folder:
            return own
        return WithPrior(own, self._pictures(self._class_folder, self.class_prompt))

    def captions(self) -> list[str]:
        """What its pictures and previews say, as far as that is known before a step."""
        return [*self._said, *self.prompts()]

    def held_out(self) -> Source | None:
        """Its pictures that training does not see."""
        folder = self.settings.held_out
        return self._pictures(folder, self.settings.prompt) if folder else None

    def prompts(self) -> list[str]:
        """What previews show: the subject, and its class."""
        return [self.named(self.settings.prompt), self.class_prompt]

    def asked(self, request: Request) -> Request:
        """A request with the words in the slots {token} and {class} of its prompts."""
        return dataclasses.replace(request, prompts=[self.named(prompt) for prompt in request.prompts])

    def named(self, prompt: str) -> str:
        """A prompt with its slots filled."""
        return fill(prompt, self.token, self.settings.class_word)

    def score(self, output: Output, request: Request, device: torch.device) -> dict[str, float]:
        """Likeness to the held-out pictures and fit to the prompts, of the prompts that name the subject."""
        if not self.settings.held_out:
            return {}
        each = request.num_images
        named = [i for i, prompt in enumerate(request.prompts) if self.token in prompt]
        pictures = [output.images[i * each + k] for i in named for k in range(each)]
        if not pictures:
            return {}
        references = [read(r.path).rgb for r in find(Path(self.settings.held_out).expanduser()).records]
        evidence = Evidence(references=references, colors=COLORS, silent=[self.token])
        self._jury = self._jury or Jury(device)
        prompts: Sequence[str] = [request.prompts[i] for i in named]
        return subject_scores(pictures, references, prompts, jury=self._jury, evidence=evidence)

    def _class_pictures(self) -> str:
        """The folder of class pictures; empty if none are wanted."""
        settings, prior = self.settings, self.settings.prior
        if not settings.prior_weight:
            return ""
        if isinstance(prior, GeneratedPrior):
            wanted = (self.family, self.class_prompt, prior, 0)
            if not prior_folder(*wanted).is_dir() and Path(settings.data).expanduser().is_dir():
                found = photos(settings.images, settings.data, **self._reading(settings.prompt))
                self._check_token(found)  # what is wrong is said before minutes of drawing
            return str(generate_prior(*wanted))
        return prior.folder if isinstance(prior, FolderPrior) else ""

    def _pictures(self, folder: str, template: str) -> Photos | Latents:
        return images(
            self.settings.images, folder, encoder=encoder_of(self.family), **self._reading(template)
        )

    def _reading(self, template: str) -> dict[str, Any]:
        """What captions are made of, and what the model asks of a picture's sides."""
        words = Words(template=template, token=self.token, class_name=self.settings.class_word)
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

"""An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion.

Gal et al., ICLR 2023, arXiv 2208.01618.

    v* = argmin_v E_{z, y, eps, t} || eps - eps_theta(z_t, t, c(y; v)) ||^2        (eq. 2)

Everything is frozen but the vectors of one new word; y are the templates of the paper's appendix.

Departures: the target is the family's own prediction kind. The vectors may be kept as long as ordinary words
(`norm`), since they otherwise grow and drown the rest of the prompt.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from studio.backend.core import Backend
from studio.backend.rng import Rng, mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss, Trainer
from studio.data.build import images
from studio.data.cache import check_cache
from studio.data.captions import Words
from studio.data.encoders import encoder_of
from studio.errors import StudioError
from studio.models.build import load
from studio.models.denoising import Prompts, add_noise, errors, latents_of
from studio.models.draw import draw
from studio.models.words import add_words, known, numbered, table
from studio.records import texts
from studio.weights.assistant import assisted
from trainers.textual_inversion.config import TextualInversion
from trainers.textual_inversion.rows import Rows

log = logging.getLogger(__name__)

TEMPLATES = {
    "object": (
        "a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}", "a photo of my {}",
        "a close-up photo of a {}", "a bright photo of the {}", "a photo of one {}", "a rendition of the {}",
        "a good photo of the {}", "an illustration of a {}", "a depiction of a {}",
    ),
    "style": (
        "a painting in the style of {}", "a rendering in the style of {}", "a picture in the style of {}",
        "a nice painting in the style of {}", "a close-up painting in the style of {}", "an artwork in the style of {}",
    ),
}  # fmt: skip
"""CLIP's ImageNet templates, as the paper and its code use them (a selection)."""
FILES = {"text_encoder": "", "text_encoder_2": "_2"}


class Templated:
    """Pictures whose captions are templates, drawn anew for each row."""

    def __init__(self, pictures: Source, templates: Sequence[str]) -> None:
        self._pictures, self._templates = pictures, templates

    def __len__(self) -> int:
        return len(self._pictures)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """The batches of the pictures with other captions, a function of the row's number."""
        for batch in self._pictures.stream(seed, first, shard):
            chosen = [mix(seed, int(row)) % len(self._templates) for row in batch["rows"]]
            yield {**batch, "captions": [self._templates[index] for index in chosen]}


class TextualInversionTrainer(Trainer):
    """One new word, on any family that CLIP reads for."""

    def __init__(self, config: TextualInversion) -> None:
        self.config = config
        check_cache(config.images, trains_text=True)

    @override
    def setup(self, backend: Backend) -> list[Group]:
        self.family = assisted(
            load(self.config.model, backend, text=self.config.text, parts=self.config.parts),
            self.config.denoising,
        )
        self.rows: dict[str, Rows] = {}
        for key, suffix in FILES.items():
            if key in self.family.clip_encoders:
                tokenizer = self.family.tokenizers[f"tokenizer{suffix}"]
                self.rows[key] = self._new_rows(self.family.clip_encoders[key], tokenizer).to(backend.device)
        if not self.rows:
            raise StudioError(f"{self.family.name} has no CLIP text encoder to teach a word.", field="model")
        self.family.hold(*self.rows)
        self.prompts_of = Prompts(self.family, trains=True)
        return [Group(name=key, module=rows) for key, rows in self.rows.items()]

    def _new_rows(self, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Rows:
        names = numbered(self.config.token, self.config.vectors)
        if taken := known(tokenizer, names):
            raise StudioError(
                f"{taken[0]!r} is a word of the model already; choose a new one, such as '<my-dog>'.",
                field="token",
            )
        first = tokenizer.encode(self.config.class_word, add_special_tokens=False)
        if len(first) not in (1, self.config.vectors):
            raise StudioError(
                f"{self.config.class_word!r} is {len(first)} tokens of the model; choose a word of one token, or set "
                f"--vectors {len(first)}.",
                field="class_word",
            )
        ids = add_words(encoder, tokenizer, names)
        rows = table(encoder).requires_grad_(False)
        start = rows.weight[torch.tensor(first).expand(self.config.vectors) if len(first) == 1 else first]
        return Rows(rows, ids, start, norm=self.config.norm)

    @property
    def word(self) -> str:
        """The word as it is written in a prompt."""
        return " ".join(numbered(self.config.token, self.config.vectors))

    @override
    def source(self) -> Source:
        family = self.family
        pictures = images(self.config.images, self.config.data, words=Words(template="x"), size=family.default_size,
                          multiple=family.size_multiple, encoder=encoder_of(family))  # fmt: skip
        return Templated(pictures, [t.format(self.word) for t in TEMPLATES[self.config.learns]])

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Eq. 2."""
        latents = latents_of(self.family, batch, rng, kind=self.config.images.latents)
        noised = add_noise(self.family, latents, rng, self.config.denoising)
        prediction = self.family.predict(
            noised.x_t, noised.t, self.prompts_of(batch["captions"], batch.get("sizes"))
        )
        return Loss(
            errors(self.family, prediction, noised, self.config.denoising, batch.get("loss_mask")).mean()
        )

    @override
    def after_step(self, step: int) -> None:
        del step
        for rows in self.rows.values():
            rows.renorm()

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        filled = [prompt.replace(self.config.token, self.word) for prompt in request.prompts]
        return Output(images=draw(self.family, dataclasses.replace(request, prompts=filled), rng))

    @override
    def prompts(self) -> Sequence[str]:
        return [TEMPLATES[self.config.learns][0].format(self.config.token)]

    @override
    def export(self, folder: Path) -> list[Path]:
        """Write the file that `load_textual_inversion` and A1111 read."""
        path = Path(folder) / f"{self.config.token.strip('<>')}.safetensors"
        named = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
        vectors = {key: rows.vectors.detach().cpu().contiguous() for key, rows in self.rows.items()}
        told = {texts.KEY: texts.written(self.family.text)}
        if len(vectors) == 1:
            save_file({self.config.token: next(iter(vectors.values()))}, path, metadata=told)
        else:
            save_file({named[key]: value for key, value in vectors.items()}, path, metadata=told)
        return [path]

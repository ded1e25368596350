"""IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models.

Hu Ye, Jun Zhang, Sibo Liu, Xiao Han, Wei Yang 2023, arXiv 2308.06721.

    Z = Attn(Q, K, V) + lambda Attn(Q, K', V'),   K' = c_i W'_k,  V' = c_i W'_v                    (eq. 5)
    L = E || eps - eps_theta(x_t, c_t, c_i, t) ||^2                                                (eq. 6)

c_i: tokens that a small projection makes of a frozen image encoder's output. Trained: the projection, W'_k and W'_v.

Departures: the picture that is read is a view of the target's object, cut out and augmented, and not the target itself,
so that the subject is learned and not the scene. Pictures are padded to squares, not cropped. In joint attention
(SD3, FLUX; ours) the picture's queries read the image tokens, with normalized keys, and the copies are of the text's keys and
values. The target is what the family predicts.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from PIL.Image import Image
from typing_extensions import override

from studio import serial, trained
from studio.adapters.files import staged, write
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.data.masked import Wanted, view_source
from studio.data.view_config import STICKERS
from studio.export import DTYPES
from studio.models.base import Condition
from studio.models.build import load
from studio.models.denoising import add_noise, errors, latents_of
from studio.models.draw import as_pictures, draw
from studio.models.seeing import gain
from studio.models.vision_tower import load_tower
from studio.trainer import Batch, Group, Loss, Output, Request, Shard, Source, Trainer
from trainers.ip_adapter.check import compare
from trainers.ip_adapter.config import IpAdapter
from trainers.ip_adapter.edit import ReferenceEdit
from trainers.ip_adapter.files import FILE, Loaded, tensors
from trainers.ip_adapter.layers import IpNetwork, dropped

_SHOWN_SEED = 7


class IpAdapterTrainer(Trainer):
    """The denoising loss with a second cross-attention; nothing of the model moves."""

    @override
    def __init__(self, config: IpAdapter) -> None:
        """Keep the settings."""
        self.config = config

    @override
    def setup(self, backend: Backend) -> list[Group]:
        config = self.config
        self.family = load(config.model, backend)
        self.tower = load_tower(config.encoder, backend, layer=config.layer)
        self.network = backend.place(IpNetwork(self.family, self.tower, config.projection), trains=True)
        return [Group(name="ip_adapter", module=self.network)]

    @override
    def source(self) -> Source:
        return self._source(held_out=False)

    @override
    def held_out(self) -> Source | None:
        return self._source(held_out=True) if self.config.data == STICKERS else None

    def _source(self, *, held_out: bool) -> Source:
        wanted = Wanted(self.tower.size, self.family.default_size, self.family.size_multiple)
        return view_source(self.config.data, self.config.views, wanted, held_out=held_out)

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Eq. 6, with text, picture or both dropped for guidance."""
        config, settings = self.config, self.config.denoising
        chance = rng.uniform(len(batch["captions"]))
        no_text, no_image = dropped(
            chance, text=config.drop_text, image=config.drop_image, both=config.drop_both
        )
        cond = self._embed(batch["captions"], no_text.tolist())
        seen = self.tower(batch["views"].to(self.backend.device)).where(~no_image, self.tower.blank())
        noised = add_noise(self.family, latents_of(self.family, batch, rng), rng, settings)
        with self.network.shown(self.family, self.network(seen)):
            prediction = self.family.predict(noised.x_t, noised.t, cond)
        found = errors(self.family, prediction, noised, settings)
        return Loss(found.mean(), {"denoising": found.mean()})

    @torch.no_grad()
    def _embed(self, captions: Sequence[str], silent: Sequence[bool]) -> Condition:
        return self.family.embed(["" if out else text for text, out in zip(captions, silent, strict=True)])

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        """Pictures of the request's references; without any, each prompt has a view of its own to look at."""
        edit = ReferenceEdit(Loaded(self.network, self.tower), self.family)
        given = [request.references] * len(request.prompts) if request.references else self._references()
        pictures: list[Image] = []
        for index, prompt in enumerate(request.prompts):
            one = dataclasses.replace(
                request, prompts=[prompt], references=given[index % len(given)], edits=[edit, *request.edits]
            )
            pictures += draw(self.family, one, rng)
        return Output(images=pictures)

    def _references(self) -> list[list[Image]]:
        views = self._shown["views"][: self.config.num_shown]
        return [[picture] for picture in as_pictures(views)]

    @cached_property
    def _shown(self) -> Batch:
        """Rows that previews are made for: held-out ones where there are any."""
        source = self.held_out() or self.source()
        count = min(max(self.config.num_shown, 2), len(source))
        return next(iter(source.stream(_SHOWN_SEED, 0, Shard(count, 0, count))))

    @override
    def prompts(self) -> Sequence[str]:
        return self._shown["captions"][: self.config.num_shown]

    @override
    def score(self, output: Output, request: Request) -> dict[str, float]:
        """What the true views are worth against those of other rows, on pictures that training does not see."""
        source = self.held_out()
        if source is None:
            return {}
        batch = next(iter(source.stream(_SHOWN_SEED, 1, Shard(64, 0, 64))))
        return gain(lambda one: self.loss(one, Rng.single(0, 1, 64, self.backend.device)).total, batch)

    @override
    def export(self, folder: Path) -> list[Path]:
        """The authors' layout, read back through diffusers where it can; and our card beside it."""
        values = {
            key: value.to(DTYPES[self.config.precision]) for key, value in tensors(self.network).items()
        }
        with staged(folder / FILE) as path:
            write(path, values, {"format": "pt", "method": "ip_adapter", "model": self.config.model})
            compare(path, Loaded(self.network, self.tower), self.family, DTYPES[self.config.precision])
        settings = {
            "encoder": self.config.encoder, "layer": self.config.layer,
            "projection": serial.to_dict(self.config.projection),
        }  # fmt: skip
        card = trained.write(folder, method="ip_adapter", model=self.config.model, settings=settings)
        return [folder / FILE, card]

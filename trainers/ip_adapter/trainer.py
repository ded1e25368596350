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

from collections.abc import Sequence
from pathlib import Path

import torch
from typing_extensions import override

from studio.adapters.files import staged, write
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch
from studio.contracts.condition import Condition
from studio.contracts.trainer import Group, Loss
from studio.models.build import load
from studio.models.denoising import add_noise, errors, latents_of
from studio.models.vision_tower import load_tower
from studio.records import places, trained
from studio.same_subject.references import ViewTrainer
from studio.settings import serial
from studio.weights.assistant import assisted
from studio.weights.export import DTYPES
from trainers.ip_adapter.check import compare
from trainers.ip_adapter.config import IpAdapter
from trainers.ip_adapter.edit import ReferenceEdit
from trainers.ip_adapter.files import FILE, Loaded, take_up, tensors
from trainers.ip_adapter.layers import IpNetwork, dropped


class IpAdapterTrainer(ViewTrainer[IpAdapter]):
    """The denoising loss with a second cross-attention; nothing of the model moves."""

    @override
    def setup(self, backend: Backend) -> list[Group]:
        config = self.config
        self.family = assisted(
            load(config.model, backend, text=config.text, parts=config.parts), config.denoising
        )
        self.tower = load_tower(config.encoder, backend, layer=config.layer)
        network = IpNetwork(self.family, self.tower, config.projection)
        if config.start:
            take_up(network, places.start(config.start, "ip_adapter"), config.projection, self.family)
        self.network = backend.place(network, trains=True)
        return [Group(name="ip_adapter", module=self.network)]

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Eq. 6, with text, picture or both dropped for guidance."""
        config, settings = self.config, self.config.denoising
        chance = rng.at("cpu").uniform(len(batch["captions"]))  # no step waits for the device
        no_text, no_image = dropped(
            chance, text=config.drop_text, image=config.drop_image, both=config.drop_both
        )
        cond = self.family.with_sizes(self._embed(batch["captions"], no_text.tolist()), batch.get("sizes"))
        seen = self.tower(batch["views"][:, 0].to(self.backend.device)).where(
            ~no_image.to(self.backend.device), self.tower.blank()
        )
        latents = latents_of(self.family, batch, rng, kind=self.config.views.images.latents)
        noised = add_noise(self.family, latents, rng, settings)
        with self.network.shown(self.family, self.network(seen)):
            prediction = self.family.predict(noised.x_t, noised.t, cond)
        found = errors(self.family, prediction, noised, settings)
        return Loss(found.mean(), {"denoising": found.mean()})

    @torch.no_grad()
    def _embed(self, captions: Sequence[str], silent: Sequence[bool]) -> Condition:
        return self.family.embed(["" if out else text for text, out in zip(captions, silent, strict=True)])

    @override
    def edit(self) -> ReferenceEdit:
        return ReferenceEdit(Loaded(self.network, self.tower), self.family)

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
        card = trained.write(folder, method="ip_adapter", model=self.config.model, settings=settings,
                             text=self.config.text)  # fmt: skip
        return [folder / FILE, card]

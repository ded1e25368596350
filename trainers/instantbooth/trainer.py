"""InstantBooth: Personalized Text-to-Image Generation without Test-Time Finetuning.

Jing Shi, Wei Xiong, Zhe Lin, Hyun Joon Jung, CVPR 2024, arXiv 2304.03411.

    f_c = E_c(x),  f_p = E_p(x)                                                   (section 3.2: concept, patches)
    y <- y + beta tanh(gamma) S([y, f_p])                                         (section 3.3: adapter layer)
    L = E || eps - eps_theta(x_t, t, c with f_c at the placeholder, f_p) ||^2     (section 3.3)

x is a view of the target's object: cut out by its mask, cropped, augmented. Trained: the two linear layers behind the
frozen image encoder and the adapters of all transformer blocks; everything else is frozen.

Departures: text, or picture, are dropped in 10 % of the rows each, so that guidance has a negative. Gates have a rate of
their own. S starts as the block's self-attention. Patch tokens are standardized before their linear layer. A
placeholder of several tokens has all its rows replaced. The target is what the family predicts. On SD3 the layer comes
before the block's joint attention. With `positions`, queries and keys of S are told where they stand (`places`). With
`num_views`, a step shows several views, taken as several references are. With `tiles`, patches are finer.
"""

import contextlib
import dataclasses
from pathlib import Path

import torch
from einops import rearrange
from typing_extensions import override

from studio.adapters.files import staged, write
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch
from studio.contracts.trainer import Group, Loss
from studio.data.masked import Wanted
from studio.models.build import load
from studio.models.denoising import add_noise, errors, latents_of
from studio.models.tiled_tower import tiled
from studio.models.vision_tower import load_tower
from studio.records import places, trained
from studio.same_subject.references import ViewTrainer
from studio.weights.assistant import assisted
from studio.weights.export import DTYPES
from trainers.instantbooth.config import SHAPING, InstantBooth
from trainers.instantbooth.edit import FILE, Instant, SubjectEdit, take_up, token_ids
from trainers.instantbooth.networks import InstantNetwork, placed


class InstantBoothTrainer(ViewTrainer[InstantBooth]):
    """The denoising loss of a picture, given a view of its object."""

    @override
    def __init__(self, config: InstantBooth) -> None:
        """Keep the settings."""
        super().__init__(config)
        self._hooks = contextlib.ExitStack()

    @override
    def setup(self, backend: Backend) -> list[Group]:
        config = self.config
        self.family = assisted(
            load(config.model, backend, text=config.text, parts=config.parts), config.denoising
        )
        self.tower = tiled(load_tower(config.encoder, backend, layer=config.layer), config.tiles)
        self._ids = token_ids(self.family, config.placeholder)
        network = InstantNetwork(self.family, self.tower, config.blocks, positions=config.positions)
        if config.start:
            take_up(network, places.start(config.start, "instantbooth"), self.family, "start")
        self.network = backend.place(network, trains=True)
        return [
            Group(name="adapter", module=self.network, names=self.network.names("adapter")),
            Group(name="fc", module=self.network, names=self.network.names("fc"), lr=config.fc_lr),
            Group(name="gate", module=self.network, names=self.network.names("gate"), lr=config.gate_lr,
                  weight_decay=0.0),
        ]  # fmt: skip

    @override
    def wanted(self) -> Wanted:
        config = self.config
        return dataclasses.replace(
            super().wanted(),
            placeholder=config.placeholder,
            nouns=config.class_words,
            num_views=config.num_views,
        )

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """The denoising loss, with the views of the step."""
        self._hooks.close()
        config, settings = self.config, self.config.denoising
        chance = rng.at("cpu").uniform(len(batch["captions"]))  # no step waits for the device
        no_text = chance < config.drop_text
        sees = no_text | (chance >= config.drop_text + config.drop_image)
        sees = sees.to(self.backend.device)
        views = batch["views"].to(self.backend.device)
        subject = self.network(self.tower(rearrange(views, "b k c h w -> (b k) c h w")), views.shape[1])
        with torch.no_grad():
            pairs = zip(batch["captions"], no_text.tolist(), strict=True)
            plain = self.family.embed(["" if out else caption for caption, out in pairs])
        cond, _ = placed(plain, self._ids, subject.concept)
        cond = dataclasses.replace(cond, tokens=torch.where(sees[:, None, None], cond.tokens, plain.tokens))
        latents = latents_of(self.family, batch, rng, kind=self.config.views.images.latents)
        noised = add_noise(self.family, latents, rng, settings)
        # The adapters stay until the step is done: recomputed activations of the backward pass need them too.
        self._hooks.enter_context(self.network.on(self.family, subject.patches, sees.float()))
        cond = self.family.with_sizes(cond, batch.get("sizes"))
        prediction = self.family.predict(noised.x_t, noised.t, cond)
        found = errors(self.family, prediction, noised, settings)
        return Loss(found.mean(), {"denoising": found.mean(), "gate_mean": self.network.gates().abs().mean()})

    @override
    def after_step(self, step: int) -> None:
        del step
        self._hooks.close()

    @override
    def edit(self) -> SubjectEdit:
        self._hooks.close()
        config = self.config
        instant = Instant(self.network, self.tower, config.placeholder, self._ids, config.alpha, config.beta)
        return SubjectEdit(instant, self.family)

    @override
    def export(self, folder: Path) -> list[Path]:
        """The trained layers, and our card beside them."""
        config = self.config
        dtype = DTYPES[config.precision]
        values = {key: value.detach().cpu().to(dtype) for key, value in self.network.state_dict().items()}
        with staged(folder / FILE) as path:
            write(path, values, {"format": "pt", "method": "instantbooth", "model": config.model})
        settings = {key: getattr(config, key) for key in (*SHAPING, "tiles", "placeholder", "alpha", "beta")}
        card = trained.write(
            folder, method="instantbooth", model=config.model, settings=settings, text=config.text
        )
        return [folder / FILE, card]

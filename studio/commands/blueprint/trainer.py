"""Blueprint: denoising finetuning with low-rank updates.

Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen, ICLR 2022, arXiv 2106.09685.

    h = W x + (alpha / r) B A x                      (eq. 3)
    L = E[ ||f(x_t, t, c) - target(x, eps, t)||^2 ]

with B = 0 at first, so that training starts at the base model; f and its target are the family's own (eps, v or flow).

Departures: the paper adapts language models; here it is the denoiser's attention.
"""

from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from studio.adapters.build import after_step, attach, groups
from studio.adapters.metadata import Facts
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.commands.blueprint.config import Blueprint
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss, Trainer
from studio.data.build import images
from studio.data.captions import Words
from studio.data.encoders import encoder_of, texts_of
from studio.models.build import load
from studio.models.denoising import Prompts, add_noise, errors, latents_of
from studio.models.draw import draw
from studio.models.modes import evaluating
from studio.weights.assistant import assisted
from studio.weights.export import export


class BlueprintTrainer(Trainer):
    """The denoising loss, on any family."""

    def __init__(self, config: Blueprint) -> None:
        """Keep the settings; nothing is loaded yet."""
        self.config = config

    @override
    def setup(self, backend: Backend) -> list[Group]:
        """Load the model, put the adapter on its denoiser, and say what trains."""
        self.family = assisted(
            load(self.config.model, backend, text=self.config.text, parts=self.config.parts),
            self.config.denoising,
        )
        name, denoiser = self.family.denoiser_name, self.family.denoiser
        self.trained = {name: denoiser}
        attached = attach(self.config.adapter, self.trained)
        self.embed = Prompts(self.family, trains=False, store=texts_of(self.family, self.config.images))
        denoiser.train()
        return groups(self.config.adapter, name, denoiser, attached[name])

    @override
    def source(self) -> Source:
        """The folder's pictures, at the size that the model draws."""
        family = self.family
        return images(self.config.images, self.config.data, words=Words(template=self.config.prompt),
                      size=family.default_size, multiple=family.size_multiple,
                      encoder=encoder_of(family))  # fmt: skip

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """The mean error of the prediction at random noise levels."""
        family, settings = self.family, self.config.denoising
        latents = latents_of(family, batch, rng, kind=self.config.images.latents)
        noised = add_noise(family, latents, rng, settings)
        prediction = family.predict(noised.x_t, noised.t, self.embed(batch["captions"], batch.get("sizes")))
        found = errors(family, prediction, noised, settings, batch.get("loss_mask")).mean()
        return Loss(found, {"denoising": found})

    @override
    def after_step(self, step: int) -> None:
        after_step(self.trained)

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        """Draw with the weights as they are."""
        with evaluating(*self.trained.values()):
            return Output(images=draw(self.family, request, rng))

    @override
    def prompts(self) -> Sequence[str]:
        return [self.config.prompt]

    @override
    def export(self, folder: Path) -> list[Path]:
        """Write the adapter, in formats that other programs read; each file is read back and compared."""
        facts = Facts(base_model=self.config.model)
        written = export(self.family, self.trained, folder, settings=self.config.export, facts=facts)
        return [one.path for one in written]

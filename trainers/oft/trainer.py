"""Controllable generation with OFT: Controlling Text-to-Image Diffusion by Orthogonal Finetuning.

Zeju Qiu, Weiyang Liu, Haiwen Feng, Yuxuan Xue, Yao Feng, Zhen Liu, Dan Zhang, Adrian Weller, Bernhard Schoelkopf,
NeurIPS 2023, arXiv 2306.07280, sections 3.5 and 4.2.

    E ||eps - eps_theta(x_t, t, prompt, hint(c))||^2,      theta = {W_i R_i^T}, hint: 8 convolutions, zero at first

Only the rotations and the hint encoder train; nothing of the denoiser is copied.

Departures: the hint is added after the first layer (as the official code does; the paper says concatenated), SiLU
instead of SELU (as the code). The target is what the family predicts. Signals are computed from the training pictures
as they come, so that any captioned folder will do. Any adapter may take OFT's place, for comparison.
"""

import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from typing_extensions import override

from studio.adapters.build import NAME, after_step, attach, groups
from studio.adapters.config import Boft, Oft
from studio.adapters.energy import kept, summary
from studio.adapters.metadata import Facts
from studio.adapters.orthogonal import project
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss, Trainer
from studio.data.build import images
from studio.data.captions import Words
from studio.data.scenes import SceneSource
from studio.errors import StudioError
from studio.models.build import load
from studio.models.denoising import Prompts, add_noise, errors, latents_of
from studio.models.draw import draw
from studio.models.modes import evaluating
from studio.records import places
from studio.settings import serial
from studio.weights import export as exporting
from studio.weights.assistant import assisted
from trainers.oft.config import OftControl
from trainers.oft.control import Signalled, agreement, signal
from trainers.oft.hint import hint_encoder, hinted

STICKERS = "stickers"
_SHOWN_SEED = 7


class OftControlTrainer(Trainer):
    """The denoising loss with a hint; what trains are rotations and the hint encoder."""

    @override
    def __init__(self, config: OftControl) -> None:
        """Check what needs no model."""
        self.config = config
        if config.data != STICKERS:
            places.folder(config.data, "data", "a folder of pictures, or stickers")
        if config.images.cache != "none":
            raise StudioError(
                f"images.cache {config.images.cache!r} would leave no pictures to take signals from; set it to none.",
                field="images.cache",
            )

    @override
    def setup(self, backend: Backend) -> list[Group]:
        config = self.config
        self.family = assisted(
            load(config.model, backend, text=config.text, parts=config.parts), config.denoising
        )
        self.trained = {self.family.denoiser_name: self.family.denoiser}
        attached = attach(config.adapter, self.trained)[self.family.denoiser_name]
        self.family.denoiser.train()
        self.hint = backend.place(hint_encoder(self.family), trains=True)
        self.prompts_of = Prompts(self.family, trains=False)
        moving = groups(config.adapter, "denoiser", self.family.denoiser, attached, numbered=True)
        return [*moving, Group(name="hint", module=self.hint, lr=config.hint_lr or None)]

    @override
    def source(self) -> Source:
        return Signalled(self._pictures(), self.config.control)

    def _pictures(self) -> Source:
        if self.config.data == STICKERS:
            return SceneSource(self.config.scenes)
        words, family = Words(template=self.config.prompt), self.family
        return images(
            self.config.images,
            self.config.data,
            words=words,
            size=family.default_size,
            multiple=family.size_multiple,
        )

    @override
    def held_out(self) -> Source | None:
        if self.config.data != STICKERS:
            return None
        return Signalled(SceneSource(self.config.scenes, held_out=True), self.config.control)

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        settings = self.config.denoising
        features = self.hint(batch["signal"])
        if self.config.drop_hint:
            keep = rng.uniform(len(features)) >= self.config.drop_hint
            features = features * keep[:, None, None, None]
        latents = latents_of(self.family, batch, rng, kind=self.config.images.latents)
        noised = add_noise(self.family, latents, rng, settings)
        with hinted(self.family, features):
            prediction = self.family.predict(
                noised.x_t, noised.t, self.prompts_of(batch["captions"], batch.get("sizes"))
            )
        found = errors(self.family, prediction, noised, settings, batch.get("loss_mask")).mean()
        return Loss(found, {"denoising": found})

    @override
    def after_step(self, step: int) -> None:
        after_step(self.trained)

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        """Pictures that follow the request's references (one a prompt, in turn); without any, the held-out signals."""
        pictures = []
        wanted = self._wanted(request)
        with evaluating(self.family.denoiser):
            for index, prompt in enumerate(request.prompts):
                one = dataclasses.replace(request, prompts=[prompt], references=())
                with (
                    torch.no_grad(),
                    hinted(self.family, self.hint(wanted[index : index + 1].to(self.backend.device))),
                ):
                    pictures += draw(self.family, one, rng)
        return Output(images=pictures)

    @override
    def prompts(self) -> Sequence[str]:
        return self._shown["captions"]

    @override
    def score(self, output: Output, request: Request) -> dict[str, float]:
        """Agreement of each picture with its signal, and what the rotations kept."""
        each = request.num_images
        wanted = self._wanted(request).repeat_interleave(each, dim=0)
        drawn = torch.stack([_tensor(image) for image in output.images])
        found = float(agreement(self.config.control, wanted, drawn).mean())
        rotates = isinstance(self.config.adapter, (Oft, Boft))
        return {"quality": found, "agreement": found} | (summary(kept(self.trained, NAME)) if rotates else {})

    @cached_property
    def _shown(self) -> Batch:
        """Pictures whose signals previews are made for: held-out ones where there are any."""
        return shown(self.config) if self.config.data == STICKERS else _first(self._pictures(), self.config)

    def _wanted(self, request: Request) -> Float[Tensor, "b 3 h w"]:
        """The signal for each prompt, of the size to draw, on the CPU."""
        height, width = (side or self.family.default_size for side in (request.height, request.width))
        if request.references:
            given = torch.stack([_tensor(picture.resize((width, height))) for picture in request.references])
        else:
            size = (height, width)
            given = torch.nn.functional.interpolate(
                self._shown["images"], size=size, mode="bilinear", antialias=True
            )
        rows = torch.arange(len(request.prompts)) % len(given)
        return signal(self.config.control, given[rows])

    @override
    def export(self, folder: Path) -> list[Path]:
        """The adapter in its formats, and the hint encoder with its settings in the header."""
        project(self.trained)
        facts = Facts(base_model=self.config.model)
        written = exporting.export(
            self.family, self.trained, folder, settings=self.config.export, facts=facts
        )
        path = folder / "hint.safetensors"
        values = {key: value.detach().cpu().contiguous() for key, value in self.hint.state_dict().items()}
        control = {"kind": serial.kind(type(self.config.control)), **serial.to_dict(self.config.control)}
        save_file(values, path, metadata={"control": json.dumps(control), "model": self.config.model})
        return [*(one.path for one in written), path]


def shown(config: OftControl) -> Batch:
    """The held-out scenes whose signals previews are made for."""
    return _first(SceneSource(config.scenes, held_out=True), config)


def _first(source: Source, config: OftControl) -> Batch:
    count = min(config.num_shown, len(source))
    return next(source.stream(_SHOWN_SEED, 0, Shard(count, 0, count)))


def _tensor(picture: object) -> Float[Tensor, "3 h w"]:
    """A PIL picture in [-1, 1]."""
    return pil_to_tensor(picture.convert("RGB")).float() / 127.5 - 1  # pyright: ignore[reportAttributeAccessIssue]  # PIL

"""JeDi: Joint-Image Diffusion Models for Finetuning-Free Personalized Text-to-Image Generation.

Yu Zeng, Vishal M. Patel, Haochen Wang, Xun Huang, Ting-Chun Wang, Ming-Yu Liu, Yogesh Balaji, CVPR 2024,
arXiv 2407.06187.

    L = mean over members i of || eps_i - eps_theta({z_t,j, m_j z_j, m_j}_j, t, {y_j}_j)_i ||^2

over sets of pictures of one subject: every self-attention layer sees the whole set, all else sees one picture. m = 1
marks references, whose clean latents are an input; a random number of them is given. Nothing is trained for a subject.

Neither training code nor the paper's settings are public. Ours: one time a set; captions and references are dropped
independently, references together with the coupling; the added input channels are zero at first, and their kernel is a
layer of its own (see `studio.models.entry`); the target is what the family predicts. References are often trained
without captions, since nobody writes one when sampling. A LoRA instead of all weights is not the paper's method.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from PIL.Image import Image
from torch import Tensor
from typing_extensions import override

from studio.adapters.build import NAME, after_step, attach, groups, tensors
from studio.adapters.config import Full
from studio.adapters.files import staged, write
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss, Trainer
from studio.data.folder_sets import FolderSets
from studio.data.set_config import StickerSets
from studio.data.sticker_sets import StickerSetSource
from studio.models.build import load
from studio.models.denoising import Noised, Prompts, errors
from studio.models.draw import draw
from studio.models.modes import evaluating
from studio.models.pictures import as_pictures
from studio.models.presence import unwrap
from studio.records import places, trained
from studio.same_subject import references
from studio.settings import serial
from studio.weights.assistant import assisted
from studio.weights.export import DTYPES
from trainers.jedi.config import Jedi
from trainers.jedi.edit import DENOISER, INPUTS, WEIGHTS, JediEdit, refuse_other_family, take_up
from trainers.jedi.model import Members, predict, reference_input

_SHOWN_SEED = 7


class JediTrainer(Trainer):
    """The denoising loss over sets, with some members given."""

    @override
    def __init__(self, config: Jedi) -> None:
        """Keep the settings."""
        self.config = config

    @override
    def setup(self, backend: Backend) -> list[Group]:
        config = self.config
        self.family = assisted(
            load(config.model, backend, text=config.text, parts=config.parts), config.denoising
        )
        given = places.start(config.start, "jedi") if config.start else None
        if given is not None:
            refuse_other_family(given, self.family, "start")
        name, denoiser = self.family.denoiser_name, self.family.denoiser
        attached = attach(config.adapter, {name: denoiser})[name]
        denoiser.train()
        self.trained = {name: denoiser}
        inputs = reference_input(self.family)
        if given is not None:
            adapter = "" if isinstance(config.adapter, Full) else NAME
            take_up(given, self.family, inputs, adapter, "start")
        self.inputs = backend.place(inputs, trains=True)
        self.prompts_of = Prompts(self.family, trains=False)
        moving = groups(config.adapter, "denoiser", denoiser, attached, numbered=True)
        return [*moving, Group(name="inputs", module=self.inputs)]

    @override
    def source(self) -> Source:
        return self._sets(self.config.set_sizes)

    @override
    def held_out(self) -> Source | None:
        return self._sets((max(self.config.set_sizes),), held_out=True)

    def _sets(self, sizes: Sequence[int], *, held_out: bool = False) -> Source:
        data, side = self.config.data, self.family.default_size
        if isinstance(data, StickerSets):
            return StickerSetSource(data, sizes, held_out=held_out)
        return FolderSets(data, sizes, side=side)

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """The mean error of the members, those given and those to draw also apart."""
        members, target, captions = self.members(batch, rng)
        sizes = rearrange(batch["sizes"], "b n six -> (b n) six") if "sizes" in batch else None
        found = self.errors(members, target, captions, sizes)
        present = torch.ones_like(members.given) if members.present is None else members.present
        given, drawn = (rearrange(m & present, "b n -> (b n)") for m in (members.given, ~members.given))
        counted = drawn if self.config.loss_on == "targets" else given | drawn
        parts = {"loss_targets": _mean(found, drawn), "loss_references": _mean(found, given)}
        parts["references"] = members.given.float().sum(1).mean()
        return Loss(_mean(found, counted), parts)

    def errors(
        self,
        members: Members,
        target: Float[Tensor, "r c h w"],
        captions: Sequence[str],
        sizes: Int[Tensor, "r 6"] | None = None,
    ) -> Float[Tensor, " r"]:
        """Error of every member, set-major."""
        prediction = predict(self.family, self.inputs, members, self.prompts_of(captions, sizes))
        times = repeat(members.t, "b -> (b n)", n=members.given.shape[1])
        noised = Noised(_rows(members.x_t), times, target)
        return errors(self.family, _rows(prediction), noised, self.config.denoising)

    def members(self, batch: Batch, rng: Rng) -> tuple[Members, Float[Tensor, "r c h w"], list[str]]:
        """Noised sets with some members given, what the network should say of every row, and its captions."""
        config, process = self.config, self.family.process
        images, present = batch["images"], batch.get("present")
        b, n = images.shape[:2]
        with torch.no_grad():
            clean = self.family.encode(_rows(images))
        t = process.sample_times(rng, b, config.denoising.times)
        eps = _rows(rng.normal(b, n, *clean.shape[1:]))
        times = repeat(t, "b -> (b n)", n=n)
        x_t, target = (
            process.add_noise(clean, eps, times),
            process.target(clean, eps, times, self.family.prediction),
        )
        given, coupled = self._given(b, n, rng), rng.uniform(b) >= config.drop_references
        given = given & coupled[:, None] & (torch.ones_like(given) if present is None else present)
        if not config.noise_references:
            x_t = torch.where(rearrange(given, "b n -> (b n) 1 1 1"), clean, x_t)
        x_t, clean = (rearrange(x, "(b n) c h w -> b n c h w", n=n) for x in (x_t, clean))
        captions = self._captions(batch["captions"], given, rng)
        return Members(x_t, t, clean, given, coupled, present), target, captions

    def _given(self, b: int, n: int, rng: Rng) -> Tensor:
        """Random members of every set, their number uniform from the fewest to all but one."""
        low = min(self.config.min_references, n - 1)
        number = low + (rng.uniform(b) * (n - low)).floor()
        rank = rng.uniform(b, n).argsort(dim=1).argsort(dim=1)
        return rank < number[:, None]

    def _captions(self, captions: Sequence[Sequence[str]], given: Tensor, rng: Rng) -> list[str]:
        """A caption a member; none at all in some sets, none for the references in others."""
        b = len(captions)
        silent = (rng.uniform(b) < self.config.drop_text).tolist()
        unnamed = (rng.uniform(b) < self.config.drop_reference_text).tolist()
        return [
            "" if silent[i] or (unnamed[i] and is_given) else caption
            for i, row in enumerate(given.tolist())
            for caption, is_given in zip(captions[i], row, strict=True)
        ]

    @override
    def after_step(self, step: int) -> None:
        after_step(self.trained)

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        """Pictures of the request's references; without any, prompt by prompt those of the held-out sets in turn."""
        edit = JediEdit(self.config, self.family, self.inputs)
        pictures: list[Image] = []
        with evaluating(self.family.denoiser):
            for index, prompt in enumerate(request.prompts):
                seen = request.references or self._shown[index % len(self._shown)][1:]
                one = dataclasses.replace(
                    request, prompts=[prompt], references=seen, edits=[*request.edits, edit]
                )
                pictures += draw(self.family, one, rng if len(request.prompts) == 1 else None)
        return Output(images=pictures)

    @cached_property
    def _shown(self) -> list[list[Image]]:
        """The pictures of some held-out sets."""
        return [as_pictures(pictures) for pictures in self._shown_sets["images"]]

    @cached_property
    def _shown_sets(self) -> Batch:
        source = self._sets((max(self.config.set_sizes),), held_out=True)
        count = min(self.config.held_out_sets, len(source))
        return next(source.stream(_SHOWN_SEED, 0, Shard(count, 0, count)))

    @override
    def prompts(self) -> Sequence[str]:
        return [captions[0] for captions in self._shown_sets["captions"]]

    @override
    def score(self, output: Output, request: Request) -> dict[str, float]:
        """How near pictures of the held-out sets come to the true ones: minus the mean squared distance."""
        if list(request.prompts) != list(self.prompts()) or request.references:
            return {}
        side = self.family.default_size
        true = references.tensors([row[0] for row in self._shown], side, side)
        drawn = references.tensors(output.images[:: request.num_images], side, side)
        return {"quality": -float((drawn - true).square().mean())}

    @override
    def export(self, folder: Path) -> list[Path]:
        """The weights and a card, as a folder that `--artifact` takes."""
        name = self.family.denoiser_name
        denoiser = unwrap(self.trained[name])
        whole = isinstance(self.config.adapter, Full)
        own = denoiser.state_dict() if whole else tensors(denoiser, NAME)
        values = {f"{DENOISER}{key}": value for key, value in own.items()}
        values |= {f"{INPUTS}{key}": value for key, value in self.inputs.state_dict().items()}
        dtype = DTYPES[self.config.precision]
        halved = {
            key: v.detach().cpu().to(dtype) if v.is_floating_point() else v for key, v in values.items()
        }
        with staged(folder / WEIGHTS) as path:
            write(path, halved, {"method": "jedi", "mask_convention": "1=reference"})
        settings = {"family": self.family.name, "set_size_max": max(self.config.set_sizes),
                    "mask_convention": "1=reference", "jedi": serial.to_dict(self.config)}  # fmt: skip
        card = trained.write(folder, method="jedi", model=self.config.model, settings=settings,
                             guidance=self.config.guidance, text=self.config.text)  # fmt: skip
        return [folder / WEIGHTS, card]


def _rows(sets: Float[Tensor, "b n c h w"]) -> Float[Tensor, "r c h w"]:
    """Members as rows, set-major."""
    return rearrange(sets, "b n c h w -> (b n) c h w")


def _mean(values: Float[Tensor, " r"], counted: Tensor) -> Tensor:
    """Mean over what counts; 0 if nothing does."""
    return (values * counted).sum() / counted.sum().clamp(min=1)

"""Diffusion-DPO: Diffusion Model Alignment Using Direct Preference Optimization.

Wallace, Dang, Rafailov, Zhou, Lou, Purushwalkam, Ermon, Xiong, Joty, Naik, CVPR 2024, arXiv 2311.12908.

    d = (||e - e_theta(x_w)||^2 - ||e - e_ref(x_w)||^2) - (||e - e_theta(x_l)||^2 - ||e - e_ref(x_l)||^2)
    L = - E log sigmoid(- beta / 2  d)                                                                   (eq. 14)

for a better picture x_w and a worse one x_l of the same prompt, at the same time and with the same noise e. The errors
are means over elements, as in the official code, to which beta is tied; its constant factors are part of beta. As there, a
fifth of the captions is empty in training (its launcher of SDXL-Turbo: none), and half of the pictures are mirrored.

Departures from the official code: LoRA, whose base model is the reference, where it finetunes a copy of the whole U-Net; the
error is that of whatever the family predicts (eps, v or flow); captions of flow models stay, for which there is no code of
theirs; the empty caption of SDXL is zeros, as its sampler has it, where the code embeds "" with both encoders; the time levels
of SDXL-Turbo are drawn like all others; the text encoder can train in the denoiser's place. Which captions are empty and which
pictures are mirrored is a function of the seed and the step.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import override

from studio.adapters.config import Adapter
from studio.adapters.strength import detached
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch, Source
from studio.contracts.trainer import Loss
from studio.diffusion.objective import per_example
from studio.models.base import Family
from studio.models.denoising import Noised, Prompts
from studio.rl.trainer import NUM_PREVIEWS, AdaptedTrainer, part_of
from trainers.diffusion_dpo.config import DiffusionDpo
from trainers.diffusion_dpo.pairs import Pairs, find_pairs

DROPOUT = 0.2
"""Share of captions that the official code empties."""


class DiffusionDpoTrainer(AdaptedTrainer[DiffusionDpo]):
    """The preference loss on pairs."""

    def __init__(self, config: DiffusionDpo) -> None:
        """Find the pairs."""
        super().__init__(config)
        self._pairs = find_pairs(config.data)

    @override
    def modules(self, family: Family) -> dict[str, nn.Module]:
        return part_of(family, self.config.trains)

    @override
    def adapter(self) -> Adapter:
        return self.config.adapter

    @override
    def prepare(self, trained: Mapping[str, nn.Module], backend: Backend) -> None:
        size = self.config.resolution or self.family.default_size
        self.family.check_size(size, size, "resolution" if self.config.resolution else "")
        self._embed = Prompts(self.family, trains=self.config.trains == "text-encoder")
        self._size = size

    @override
    def source(self) -> Source:
        dropout = self.config.caption_dropout
        if dropout == "auto":
            dropout = 0.0 if self.family.prediction == "flow" else DROPOUT
        return Pairs(self._pairs, self._size, caption_dropout=dropout, flip=self.config.flip)

    @override
    def held_out(self) -> Source | None:
        return Pairs(find_pairs(self.config.held_out), self._size) if self.config.held_out else None

    @override
    def prompts(self) -> list[str]:
        return list(dict.fromkeys(pair.prompt for pair in self._pairs))[:NUM_PREVIEWS]

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Eq. 14: how often, and how surely, the better picture is the one that training helps more."""
        noised, prompts = self._noised(batch, rng), [*batch["captions"], *batch["captions"]]
        told = [batch[key] for key in ("chosen_sizes", "rejected_sizes") if key in batch]
        sizes = torch.cat(told) if told else None
        model = self._errors(noised, prompts, sizes)
        with torch.no_grad(), detached(self.trained):
            base = self._errors(noised, prompts, sizes)
        chosen, rejected = (model - base).chunk(2)
        d = chosen - rejected
        total = -F.logsigmoid(-self.config.beta / 2 * d).mean()
        right = (d < 0).float() + (d == 0).float() / 2
        parts: dict[str, Any] = {"implicit_accuracy": right.mean(), "error": model.mean()}
        return Loss(
            total,
            parts | {"error_chosen": chosen.detach().mean(), "error_rejected": rejected.detach().mean()},
        )

    def _noised(self, batch: Batch, rng: Rng) -> Noised:
        """Better pictures, then worse ones, a pair at the same time with the same noise."""
        with torch.no_grad():
            latents = self.family.encode(torch.cat([batch["chosen"], batch["rejected"]]))
        process, pairs = self.family.process, len(batch["captions"])
        t = process.sample_times(rng, pairs, self.config.times).repeat(2)
        eps = rng.normal(pairs, *latents.shape[1:]).repeat(2, 1, 1, 1)
        target = process.target(latents, eps, t, self.family.prediction)
        return Noised(process.add_noise(latents, eps, t), t, target)

    def _errors(
        self, noised: Noised, prompts: list[str], sizes: Int[Tensor, "b 6"] | None
    ) -> Float[Tensor, " b"]:
        prediction = self.family.predict(noised.x_t, noised.t, self._embed(prompts, sizes))
        return per_example(prediction, noised.target)

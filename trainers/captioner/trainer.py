"""Captioner: maximum likelihood, then discriminative finetuning.

Dessi, Bevilacqua, Gualdoni, Rakotonirina, Franzon, Baroni, "Cross-Domain Image Captioning with Discriminative
Finetuning", CVPR 2023, arXiv 2304.01662:

    r = log softmax_j( s <e_text(c), e_image(J_j)> )[target],   c ~ pi(. | I),   candidates J = the pictures of the batch
    grad = E[ (r - b) grad log pi(c | I) ],   log pi = the sum over the caption's tokens

Departures: captions are sampled by default, so that the gradient is unbiased; the cosine is scaled by 100 as CLIP does,
since a softmax of raw cosines over 100 pictures is nearly flat; a batch's normalized rewards are an option (an
independent reproduction found them better); KL to the first captioner and entropy are exact over the vocabulary. On
several processes the candidates are the pictures of one process.
"""

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from studio.backend.core import Backend
from studio.backend.rng import Rng, mix
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss, Trainer
from studio.data.captioned import Numbered, pictures
from studio.data.scenes import SceneSource
from studio.models.captioner import Captioner as Model
from studio.models.captioner import load_captioner
from studio.models.clip import load_clip
from studio.rl.advantages import over_rollout
from studio.rl.text import RunningMean, caption_logp, divergence, entropy, found
from trainers.captioner.config import STICKERS, Captioner, Discriminative
from trainers.captioner.exam import Exam, appraise

BRIDGE = "bridge."


class CaptionerTrainer(Trainer):
    """A writer on a frozen CLIP."""

    @override
    def __init__(self, config: Captioner) -> None:
        self.config, self.objective = config, config.objective
        self._baseline, self._pending = RunningMean(), torch.zeros(0)

    @override
    def setup(self, backend: Backend) -> list[Group]:
        self.model: Model = load_captioner(self.config.model)
        backend.place(self.model.clip)
        writer = backend.place(self.model.writer, trains=True)
        self.initial = backend.place(copy.deepcopy(writer))
        names = frozenset(key for key, _ in writer.named_parameters())
        if isinstance(self.objective, Discriminative):
            writer.eval()  # a policy with dropout would be another one than wrote
            self.retriever = backend.place(load_clip(self.objective.retriever))
            if not self.objective.train_bridge:
                writer.bridge.requires_grad_(False)
                names = frozenset(key for key in names if not key.startswith(BRIDGE))
        return [Group(name="writer", module=writer, names=names)]

    @override
    def source(self) -> Source:
        return Numbered(self._pictures(held_out=False))

    @override
    def held_out(self) -> Source | None:
        """New scenes of pairs that training never shows; a folder has none."""
        if self.config.data != STICKERS or isinstance(self.objective, Discriminative):
            return None
        return Numbered(self._pictures(held_out=True))

    def _pictures(self, *, held_out: bool) -> Source:
        if self.config.data == STICKERS:
            return SceneSource(self.config.scenes, held_out=held_out)
        captioned = not isinstance(self.objective, Discriminative)
        return pictures(self.config.images, self.config.data, size=self.model.clip.size, captioned=captioned)

    @override
    def batches(self, data: Iterator[Batch], first: int) -> Iterator[Batch]:
        for batch in data:
            seen = self.model.see(batch["images"])
            if isinstance(self.objective, Discriminative):
                yield self._rollout(batch, seen, self.objective)
            else:
                yield {"patches": seen, "captions": batch["captions"]}

    def _rollout(self, batch: Batch, seen: Float[Tensor, "b n k"], objective: Discriminative) -> Batch:
        """Captions written now, with their advantages; what is known of all of them rides along."""
        sample = objective.decode == "sample"
        with self.backend.seeded(mix(*batch["seeds"][:1])):
            tokens = self.model.write(seen, sample=sample, max_tokens=self.config.max_tokens)
        scale = objective.reward_temperature or float(self.retriever.logit_scale)
        rewards = self._rewards(batch["images"], self.model.texts(tokens), scale)
        self._pending = rewards
        centered = over_rollout(rewards) if objective.baseline == "batch" else self._baseline(rewards)
        return {"patches": seen, "tokens": tokens, "advantages": centered, "rewards": rewards}

    @torch.no_grad()
    def _rewards(
        self, pictures: Float[Tensor, "b c h w"], texts: Sequence[str], scale: float
    ) -> Float[Tensor, " b"]:
        seen = self.retriever.images(pictures.to(self.retriever.mean)).float()
        target = torch.arange(len(seen), device=seen.device)
        return found(self.retriever.texts(texts).float(), seen, target, scale)

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        del rng  # all chance is in the rollout
        if isinstance(self.objective, Discriminative):
            return self._policy_gradient(batch, self.objective)
        tokens, mask = self.model.encode(batch["captions"])
        logits = self.model.writer(batch["patches"], tokens, self.model.start)
        each = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none") * mask
        return Loss((each.sum(1) / mask.sum(1)).mean())

    def _policy_gradient(self, batch: Batch, objective: Discriminative) -> Loss:
        tokens: Int[Tensor, "b l"] = batch["tokens"]
        mask: Bool[Tensor, "b l"] = self.model.mask(tokens)
        logits = self.model.writer(batch["patches"], tokens, self.model.start)
        total = -(batch["advantages"] * caption_logp(logits, tokens, mask)).mean()
        parts = {"reward": batch["rewards"].mean(), "length": mask.sum(1).float().mean() - 1}
        parts["entropy"] = entropy(logits, mask).mean()
        total = total - objective.entropy_weight * parts["entropy"]
        if objective.kl_weight:
            with torch.no_grad():
                reference = self.initial(batch["patches"], tokens, self.model.start)
            parts["kl"] = divergence(logits, reference, mask).mean()
            total = total + objective.kl_weight * parts["kl"]
        return Loss(total, parts)

    @override
    def after_step(self, step: int) -> None:
        self._baseline.seen(self._pending)
        self._pending = torch.zeros(0)

    @override
    def state(self) -> dict[str, Any]:
        return {"baseline": self._baseline.state()}

    @override
    def load_state(self, state: dict[str, Any]) -> None:
        self._baseline.load_state(state["baseline"])

    @override
    def prompts(self) -> Sequence[str]:
        return ("captions of unseen scenes",)

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        """Captions of the request's pictures, or of the scenes that it is scored on."""
        del rng
        shown = self.exam.scenes.images if request.batch is None else request.batch["images"]
        return Output(texts=self.model.caption(shown, max_tokens=self.config.max_tokens))

    @override
    def score(self, output: Output, request: Request) -> dict[str, float]:
        """Retrieval among the candidates, and what tells whether captions degrade."""
        if request.batch is not None:
            return {}
        scores = appraise(self.exam, self.model, self.initial, output.texts)
        return {**scores, "quality": scores["retrieval"]}

    @cached_property
    def exam(self) -> Exam:
        """Scenes that training never draws, and who looks for them."""
        judge = self.retriever if isinstance(self.objective, Discriminative) else self.model.clip
        judges = {"retrieval": judge}
        return Exam.of(self.config.scenes, judges, candidates=self.config.candidates, like=judge.mean)

    @override
    def export(self, folder: Path) -> list[Path]:
        """A folder that `load_captioner` and `studio data caption --model` read; it is read back at once."""
        files = self.model.save(folder / "captioner")
        again = load_captioner(str(folder / "captioner")).writer.state_dict()
        mine = self.model.writer.state_dict()
        if any(not torch.equal(value.cpu().float(), again[key]) for key, value in mine.items()):
            raise RuntimeError(f"{folder} does not read back as it was written")
        return files

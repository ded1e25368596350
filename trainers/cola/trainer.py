"""COLA: How to adapt vision-language models to Compose Objects Localized with Attributes?

Ray, Radenovic, Dubey, Plummer, Krishna, Saenko, NeurIPS 2023 (datasets and benchmarks), arXiv 2305.03689. CLIP is
frozen; for every pair of picture and caption

    M = [W h_v ; h_t],   o = decoder(q, encoder(M)),   s = mean over the caption's words j of <o, h_t[j]>

with h_v, h_t the tokens of both towers behind the layer before the last. The loss is cross-entropy over the matrix of
scores of a batch, both ways; batches hold hard negatives: each scene with its twin whose attributes are swapped, and
objects from a pool of a few.

Departures: captions that a batch has twice are no wrong answers of each other (with few objects and colors that is a third of
the rows); besides, twins are told apart among themselves, since among a whole batch they teach little; padding, start and end take no part in M (the official sketch has no mask); s is divided by the square root
of the width and by a temperature; a baseline is a linear map on each tower's feature, or prompt tuning with one set of
vectors for all captions.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss, Trainer
from studio.data.twins import FileTwins, StickerTwins
from studio.models.clip import load_clip
from studio.models.modes import evaluating
from studio.settings import serial
from trainers.cola.config import STICKERS, Cola, Multimodal
from trainers.cola.exam import Exam
from trainers.cola.heads import LinearHead, MultimodalHead, PromptHead, build

LOOK = 40
"""Items that a preview is scored on."""
WEIGHTS, DESCRIPTION = "cola.safetensors", "cola.json"


class ColaTrainer(Trainer):
    """Image-text matching on hard negatives."""

    @override
    def __init__(self, config: Cola) -> None:
        self.config = config

    @override
    def setup(self, backend: Backend) -> list[Group]:
        self.clip = backend.place(load_clip(self.config.model))
        self.head = backend.place(build(self.config, self.clip), trains=True)
        return [Group(name="head", module=self.head)]

    @override
    def source(self) -> Source:
        if self.config.data == STICKERS:
            return StickerTwins(self.config.scenes)
        return FileTwins(self.config.data, self.clip.size)

    @override
    def held_out(self) -> Source | None:
        """Scenes of pairs of object and attribute that training never shows; a file has none."""
        return StickerTwins(self.config.scenes, held_out=True) if self.config.data == STICKERS else None

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        del rng
        scores = self.scores(batch["images"], batch["captions"])
        logits = scores / self.config.temperature if isinstance(self.config.head, Multimodal) else scores
        batched = both_ways(apart(logits, batch["captions"]))
        pairs = rearrange(logits, "(p i) (q j) -> p q i j", i=2, j=2).diagonal().permute(2, 0, 1)
        among = torch.stack([both_ways(twins) for twins in pairs]).mean()
        target = torch.arange(len(logits), device=logits.device)
        right = (logits.detach().argmax(1) == target).float().mean()
        found = {"loss_batch": batched, "loss_twins": among, "accuracy": right}
        return Loss(batched + self.config.twin_weight * among, found)

    def scores(self, images: Float[Tensor, "b c h w"], captions: Sequence[str]) -> Float[Tensor, "b t"]:
        """Every picture with every caption."""
        return match(self.head, images, captions)

    @override
    def prompts(self) -> Sequence[str]:
        return ("twins that training never shows",)

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        """Scores of the request's pictures and captions; of the exam's twins if it brings none."""
        del rng
        batch = request.batch or {
            "images": self.exam.twins.images[:2],
            "captions": self.exam.twins.captions[:2],
        }
        with evaluating(self.head), torch.no_grad():
            found = self.scores(batch["images"], batch["captions"])
        return Output(logits=found)

    @override
    def score(self, output: Output, request: Request) -> dict[str, float]:
        """The multi-object measure on pairs of object and attribute that training never shows."""
        if request.batch is not None:
            return {}
        with evaluating(self.head):
            found = self.exam.scores(self.scores, single=False)["multi-object"]
        return {"multi-object": found, "quality": found}

    @cached_property
    def exam(self) -> Exam:
        """Scenes that training never draws."""
        return Exam.of(self.config.scenes, LOOK, held_out=True)

    @override
    def export(self, folder: Path) -> list[Path]:
        """The head's weights and settings, as `load_head` reads them; read back at once."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {key: value.detach().cpu().contiguous() for key, value in self.head.state_dict().items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / DESCRIPTION).write_text(
            json.dumps(serial.to_dict(self.config), indent=2) + "\n", encoding="utf-8"
        )
        again = load_head(folder)[1].state_dict()
        if any(not torch.equal(value, again[key]) for key, value in tensors.items()):
            raise RuntimeError(f"{folder} does not read back as it was written")
        return [folder / WEIGHTS, folder / DESCRIPTION]


def apart(logits: Float[Tensor, "b b"], captions: Sequence[str]) -> Float[Tensor, "b b"]:
    """Scores without those of a picture with an equal caption of another row, which is no wrong answer."""
    number = {caption: place for place, caption in enumerate(dict.fromkeys(captions))}
    which = torch.tensor([number[caption] for caption in captions], device=logits.device)
    equal = which[:, None] == which
    return logits.masked_fill(
        equal & ~torch.eye(len(which), dtype=torch.bool, device=logits.device), -torch.inf
    )


def both_ways(logits: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
    """Cross-entropy over rows and over columns, averaged; row i belongs to column i."""
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)) / 2


def match(
    head: MultimodalHead | LinearHead | PromptHead, images: Float[Tensor, "b c h w"], captions: Sequence[str]
) -> Float[Tensor, "b t"]:
    """Scores of every picture in [-1, 1] with every caption."""
    seen: Any = head.see(images)
    told: Any = head.read(captions)
    return head.match(seen, told)


def load_head(folder: Path) -> tuple[Cola, MultimodalHead | LinearHead | PromptHead]:
    """A trained head with its settings, on the CPU, in eval mode."""
    config = serial.from_dict(Cola, json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")))
    clip = load_clip(config.model).requires_grad_(False)
    head = build(config, clip)
    head.load_state_dict(load_file(folder / WEIGHTS))
    return config, head.eval()

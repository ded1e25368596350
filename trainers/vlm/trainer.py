"""Supervised finetuning of vision-language models on conversations.

Liu, Li, Wu, Lee, "Visual Instruction Tuning", 2023, arXiv 2304.08485, eq. 3: the next-token loss over the tokens of the
assistant's turns, each with what ends it; pictures and questions are context only.

Departure: each conversation counts alike, whatever the length of its answers, where LLaVA averages over the tokens of a
process's batch; so a batch gives the same gradient however it is split over parts and processes.
"""

from typing_extensions import override

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.chat.task import load_task
from studio.chat.trainers import Answers
from studio.contracts.batch import Batch, Source
from studio.contracts.trainer import Group, Loss, Trainer
from trainers.vlm.config import Vlm


class VlmTrainer(Answers, Trainer):
    """The language-modeling loss on answers."""

    @override
    def __init__(self, config: Vlm) -> None:
        self.config = config

    @override
    def setup(self, backend: Backend) -> list[Group]:
        self.task = load_task(self.config, backend)
        return self.task.groups

    @override
    def source(self) -> Source:
        return self.task.source(self.task.encode)

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        del rng
        return Loss(self.task.model.answer_loss(batch["examples"]).mean())

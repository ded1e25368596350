"""CAFe: Unifying Representation and Generation with Contrastive-Autoregressive Finetuning.

Yu et al., 2025, arXiv 2503.19900:

    L = L_LM + lambda L_con
    L_LM    next-token loss of the answers
    L_con   symmetric cross-entropy over cosines / 0.05 of a batch's pictures and texts

Both embeddings come from the decoder that writes, with two more prompts in chat form: the picture and "Compress this
image in one word:", the text and "Compress this sentence in one word:". An embedding is the last layer's state at the
last token of the prompt, the opened answer included, of unit length.

Departures: a pair is a conversation's first picture and first answer; a large batch fits by recomputing chunks, which gives the gradient of the whole batch exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.chat.model import Encoded, Inputs
from studio.chat.task import load_task
from studio.chat.trainers import Answers
from studio.contracts.batch import Batch, Source
from studio.contracts.trainer import Group, Loss, Trainer
from studio.data.conversations import MARK, Conversation, Turn
from studio.errors import StudioError
from trainers.cafe.config import Cafe

ASK_IMAGE, ASK_TEXT = "Compress this image in one word:", "Compress this sentence in one word:"


@dataclass(frozen=True)
class Pair:
    """A conversation to learn to write, and the two prompts that embed its picture and its text."""

    whole: Encoded
    picture: Inputs
    text: Inputs


class CafeTrainer(Answers, Trainer):
    """Writes and embeds with one decoder."""

    @override
    def __init__(self, config: Cafe) -> None:
        self.config = config

    @override
    def setup(self, backend: Backend) -> list[Group]:
        self.task = load_task(self.config, backend)
        bare = [one.name for one in self.task.found if not one.pictures]
        if bare and self.config.contrast_weight:
            raise StudioError(
                f"{len(bare)} conversations have no picture to embed, first {bare[0]!r}; leave them out, or set "
                "--contrast-weight 0.",
                field="data",
            )
        return self.task.groups

    @override
    def source(self) -> Source:
        return self.task.source(self._pair if self.config.contrast_weight else self.task.encode)

    def _pair(self, conversation: Conversation) -> Pair:
        model, answer = self.task.model, conversation.answers[0]
        image = Conversation(
            conversation.name, (Turn("user", f"{MARK}\n{ASK_IMAGE}"),), conversation.pictures[:1]
        )
        text = Conversation(conversation.name, (Turn("user", f"{answer}\n{ASK_TEXT}"),))
        return Pair(self.task.encode(conversation), model.prompt(image), model.prompt(text))

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        del rng
        if not self.config.contrast_weight:
            return Loss(self.task.model.answer_loss(batch["examples"]).mean())
        pairs: list[Pair] = batch["examples"]
        written = self.task.model.answer_loss([pair.whole for pair in pairs]).mean()
        seen, read = self.embed([pair.picture for pair in pairs]), self.embed([pair.text for pair in pairs])
        seen, read = self.backend.gather(seen), self.backend.gather(read)
        contrast, right = contrastive(seen, read, self.config.temperature)
        parts = {"loss_lm": written, "loss_contrast": contrast, "retrieval": right}
        return Loss(written + self.config.contrast_weight * contrast, parts)

    def embed(self, prompts: Sequence[Inputs]) -> Float[Tensor, "b d"]:
        """Unit-length embeddings of prompts, a chunk at a time."""
        size = self.config.chunk or len(prompts)
        parts = [list(prompts[start : start + size]) for start in range(0, len(prompts), size)]
        if len(parts) == 1 or not torch.is_grad_enabled():
            states = [self.task.model.last_states(part) for part in parts]
        else:
            states = [checkpoint(self.task.model.last_states, part, use_reentrant=False) for part in parts]
        return F.normalize(torch.cat([state.float() for state in states]), dim=-1)


def contrastive(
    seen: Float[Tensor, "b d"], read: Float[Tensor, "b d"], temperature: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """L_con of unit-length embeddings, the mean of both ways; and the share of pictures that find their text."""
    logits = seen @ read.mT / temperature
    target = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)) / 2
    return loss, (logits.detach().argmax(1) == target).float().mean()

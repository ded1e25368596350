"""A chat model with its conversations: what moves, how it answers and is written."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studio.adapters.build import attach, groups
from studio.adapters.config import Full
from studio.adapters.merge import merged_copy
from studio.backend.core import Backend
from studio.chat.config import Chat
from studio.chat.lengths import lengths
from studio.chat.model import ChatModel, Encoded, load_vlm
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group
from studio.data.conversations import (
    MARK,
    Conversation,
    Conversations,
    Turn,
    first_questions,
    open_conversations,
)
from studio.models.modes import evaluating

log = logging.getLogger(__name__)
PREVIEWS = 4
"""Conversations whose first question is asked again in previews."""
FOLDER = "model"


@dataclass(frozen=True)
class Task:
    """What every method that trains a chat model has."""

    config: Chat
    model: ChatModel
    groups: list[Group]
    found: list[Conversation]

    def encode(self, conversation: Conversation) -> Encoded:
        """A conversation as the model reads it, answers labelled."""
        return self.model.encode(conversation, self.config.max_tokens, cut=self.config.too_long == "cut")

    def source(self, encode: Callable[[Conversation], Any]) -> Conversations:
        """The conversations, each as `encode` makes it."""
        return Conversations(self.found, encode)

    def questions(self) -> list[str]:
        """What previews ask, if the person asks nothing else."""
        return [one.turns[-1].text.replace(MARK, "").strip() for one in first_questions(self.found, PREVIEWS)]

    def asked(self, request: Request) -> list[Conversation]:
        """The request's questions: prompt n is asked about the pictures of conversation n, and again from the start."""
        own = first_questions(self.found, PREVIEWS)
        if list(request.prompts) in ([], self.questions()):
            return own
        shown = [own[place % len(own)].pictures for place in range(len(request.prompts))]
        return [
            Conversation(prompt, (Turn("user", MARK * len(pictures) + prompt),), pictures)
            for prompt, pictures in zip(request.prompts, shown, strict=True)
        ]

    def answer(self, request: Request) -> Output:
        """Answers to the request's questions, with all dropout off."""
        with evaluating(self.model.network):
            return Output(texts=self.model.answer(self.asked(request), self.config.preview_tokens))

    def export(self, folder: Path) -> list[Path]:
        """A folder that transformers reads, adapters merged; it is read back and compared."""
        plain = bare(self.model.network)
        files = self.model.save(plain, folder / FOLDER)
        again = load_vlm(str(folder / FOLDER)).network.state_dict()
        for key, value in plain.state_dict().items():
            if not torch.equal(value.detach().cpu().float(), again[key]):
                raise RuntimeError(f"{folder} does not read back as it was written: {key}")
        return files


def load_task(config: Chat, backend: Backend) -> Task:
    """Read the conversations, load the model, attach the adapter; name what moves.

    Raises:
        StudioError: A conversation cannot be used, or the model is not there.
    """
    found = open_conversations(config.data, config.pictures)
    model = load_vlm(config.model, config.max_pixels, config.template)
    for note in (*model.speech.notes, _measured(config, model, found)):
        log.info(note)
    backend.place(model.network)
    return Task(config, model, _groups(config, model), found)


def _measured(config: Chat, model: ChatModel, found: list[Conversation]) -> str:
    """How long the conversations are; refused before the first step where one is too long."""
    how = lengths(model.speech, model.image_token, found)
    if how.most > (config.max_tokens or model.longest):
        longest = next(one for one in found if one.name == how.longest)
        model.encode(longest, config.max_tokens, cut=config.too_long == "cut")
    return how.told()


def _groups(config: Chat, model: ChatModel) -> list[Group]:
    """What trains, part by part; the language model by its adapter."""
    found: list[Group] = []
    if "language" in config.trains:
        attached = attach(config.adapter, {"language": model.language})["language"]
        where = model.place(model.language)
        inside = frozenset(f"{where}.{name}" for name in attached)
        found += groups(config.adapter, "language", model.network, inside)
        if isinstance(
            config.adapter, Full
        ):  # a head that is tied to the table of words is listed there alone
            found += _freed(model, "head", _named(model, lambda key: key.startswith("lm_head.")), 1.0)
    for part in config.trains:
        if part != "language":
            scale = config.vision_lr_scale if part == "vision" else config.projector_lr_scale
            found += _freed(model, part, _named(model, partial(_belongs, model, part)), scale)
    return found


def _named(model: ChatModel, wanted: Callable[[str], bool]) -> frozenset[str]:
    return frozenset(key for key, _ in model.network.named_parameters() if wanted(key))


def _belongs(model: ChatModel, part: str, key: str) -> bool:
    return model.part_of(key) == part


def _freed(model: ChatModel, name: str, names: frozenset[str], scale: float) -> list[Group]:
    if not names:
        return []
    for key, value in model.network.named_parameters():
        if key in names:
            value.data = value.data.float()
            value.requires_grad_(True)
    return [Group(name=name, module=model.network, names=names, lr_scale=scale)]


def bare(network: nn.Module) -> nn.Module:
    """A copy of a model with its adapters folded in and no trace of them."""
    twin = merged_copy(network)
    for module in twin.modules():
        if "peft_config" in vars(module):
            del module.peft_config
            vars(module)["_hf_peft_config_loaded"] = False  # else transformers saves an adapter alone
    return twin

"""Captions for a folder of pictures, by the embedded captioner or a chat model: `studio data caption DIR`."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torchvision.transforms.v2 import functional as tv

from studio.backend.core import Backend
from studio.chat.config import Captioning
from studio.chat.model import load_vlm
from studio.data import images, layouts
from studio.data.conversations import MARK, Conversation, Turn
from studio.data.layouts import Record
from studio.data.tables import table_of
from studio.errors import StudioError
from studio.models.captioner import is_captioner, load_captioner
from studio.records import runs

log = logging.getLogger(__name__)
Describe = Callable[[Path], str]


@dataclass(frozen=True)
class Written:
    """A caption file, and what it says."""

    path: Path
    text: str


def caption(folder: str | Path, settings: Captioning) -> Iterator[Written]:
    """Write NAME.txt beside each picture that needs a caption; yields them as they are written.

    Raises:
        StudioError: There are no pictures, their captions are in a table, or the model is not there.
    """
    records = [r for r in layouts.find(folder).records if settings.overwrite or not r.caption]
    _check(records)
    if not records:
        log.info("every picture has a caption; --overwrite writes new ones")
        return
    describe = _describer(settings)
    for record in records:
        text = " ".join(f"{settings.prefix} {describe(record.path)}".split())
        path = record.path.with_suffix(".txt")
        runs.write_text(path, text + "\n")
        yield Written(path, text)


def _check(records: list[Record]) -> None:
    """Refuse folders whose captions are kept elsewhere, before a model is loaded."""
    for folder in {record.path.parent for record in records}:
        if table := table_of(folder):
            raise StudioError(
                f"The captions of {folder} are in {table.name}; remove it to keep them in text files."
            )


def _describer(settings: Captioning) -> Describe:
    """What turns a picture into its caption."""
    backend = Backend(settings.hardware)
    if is_captioner(settings.model):
        model = load_captioner(settings.model)
        backend.place(model.clip)
        backend.place(model.writer)
        how = {"beams": settings.beams, "max_tokens": settings.max_tokens}
        return lambda path: model.caption(_tensor(path), **how)[0]
    chat = load_vlm(settings.model)
    backend.place(chat.network)

    def asked(path: Path) -> str:
        question = Conversation(path.name, (Turn("user", f"{MARK}\n{settings.prompt}"),), (path,))
        with backend.autocast():
            return chat.answer([question], settings.max_tokens)[0]

    return asked


def _tensor(path: Path) -> torch.Tensor:
    """A picture in [-1, 1], as a batch of one."""
    return rearrange(tv.pil_to_tensor(images.read(path).rgb), "c h w -> 1 c h w") / 127.5 - 1

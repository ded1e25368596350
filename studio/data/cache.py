"""Tensors computed once and kept on disk by content; runs may share them at the same time.

A key is the hash of all that the result follows from: the picture's bytes, the view taken of it, weights and settings of the
encoder and the precision. So a cache is never stale: what changes gets another key. A file names its key and the hash of
its tensors; one that does not hold what it names is made again.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from studio.data.config import Images
from studio.errors import StudioError
from studio.records import places

logger = logging.getLogger(__name__)
Tensors = Mapping[str, Tensor]


def digest(*parts: str | bytes) -> str:
    """One hash of several parts; where one ends and the next begins matters."""
    whole = hashlib.blake2b(digest_size=20)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        whole.update(len(content).to_bytes(8, "little") + content)
    return whole.hexdigest()


@dataclass
class Cache:
    """Named tensors on disk, one safetensors file a key. `hits` and `misses` count what was asked."""

    folder: Path
    hits: int = field(default=0, init=False)
    misses: int = field(default=0, init=False)

    def get(self, key: str, make: Callable[[], Tensors]) -> dict[str, Tensor]:
        """The tensors of a key, on the CPU; made and written if they are not there.

        Raises:
            StudioError: If the folder cannot be written.
        """
        path = self.folder / key[:2] / f"{key}.safetensors"
        found = _read(path, key)
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        made = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
        _write(path, key, made)
        return made


def content(tensors: Tensors) -> str:
    """A hash of tensors on the CPU: names, types, shapes and every byte."""
    parts: list[str | bytes] = []
    for name, tensor in sorted(tensors.items()):
        raw = tensor.contiguous().flatten().view(torch.uint8)
        parts += [f"{name} {tensor.dtype} {tuple(tensor.shape)}", raw.numpy().tobytes()]
    return digest(*parts)


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    """The tensors of a file, or None if there is none that holds what it should."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as opened:
            told = opened.metadata() or {}
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # not a dictionary
    except (SafetensorError, OSError) as error:
        logger.warning("cache file %s is damaged (%s) and is made again", path, error)
        return None
    if told != {"key": key, "content": content(found)}:
        logger.warning("cache file %s does not hold what its name says and is made again", path)
        return None
    return found


def _write(path: Path, key: str, tensors: Tensors) -> None:
    """Write a file whole or not at all; of two writers the last one wins, with the same content."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.")
        with os.fdopen(handle, "wb") as file:
            file.write(save(dict(tensors), metadata={"key": key, "content": content(tensors)}))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()
        message = f"Cannot write the cache in {path.parents[1]} ({error.strerror}); free space, set another cache_folder, or set cache to 'none'."
        raise StudioError(message, field="cache_folder") from error


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """What turns pictures into latents, and what its result follows from besides them.

    `encode` takes (1 3 h w) in [-1, 1] and gives tensors with a leading axis of 1, by their names in a batch, as a
    function of its input alone: no running noise. `fingerprint` names its weights, settings and precision. Tensors are
    stored as `dtype`. `done` is called when all pictures are encoded.
    """

    encode: Callable[[Float[Tensor, "1 3 h w"]], Tensors]
    fingerprint: str
    dtype: torch.dtype = torch.float32
    done: Callable[[], None] = lambda: None

    def key(self, content: str, view: str) -> str:
        """The key of one view of a picture, by the digest of its bytes."""
        return digest("latents", content, view, self.fingerprint, str(self.dtype))


@dataclass(frozen=True, kw_only=True)
class TextCache:
    """Text embeddings computed once a caption: every variant that shuffling or dropout makes is its own entry.

    `fingerprint` names all that an embedding follows from besides the caption.
    """

    cache: Cache
    fingerprint: str

    def __call__(self, caption: str, embed: Callable[[], Tensors]) -> dict[str, Tensor]:
        """The tensors of a caption's embedding, on the CPU."""
        return self.cache.get(digest("text", caption, self.fingerprint), embed)


def open_cache(settings: Images) -> Cache:
    """The cache that the settings name."""
    return Cache(places.cache(settings.cache_folder))


def check_cache(settings: Images, *, trains_text: bool, trains_encoder: bool = False) -> list[str]:
    """What is cached, in words, for the record of a run.

    Args:
        settings: Of the data.
        trains_text: Whether a text encoder or its embeddings are trained.
        trains_encoder: Whether what makes the latents is trained.

    Raises:
        StudioError: If the cache would cancel what is trained.
    """
    if settings.cache == "none":
        return []
    if trains_encoder:
        raise StudioError(
            "cache keeps latents, which a trained encoder changes; set cache to 'none'.", field="cache"
        )
    if settings.cache == "latents+text" and trains_text:
        message = "cache 'latents+text' keeps text embeddings, which a trained text encoder changes; set cache to 'latents'."
        raise StudioError(message, field="cache")
    views = f"{settings.cache_views} fixed views" if settings.cache_views > 1 else "one view"
    facts = [f"latents are cached: {views} of each picture (crop {settings.crop}, flip {settings.flip})"]
    if settings.cache == "latents+text":
        varied = settings.captions.dropout > 0 or settings.captions.shuffle
        how = "each variant of a caption on its own" if varied else "one a caption"
        facts.append(f"text embeddings are cached: {how}")
    return facts

"""Tensors computed once and kept on disk by content; runs may share them at the same time.

A key is the hash of all that the result follows from: the picture's bytes, the view taken of it, the weights of the
encoder and the precision. So a cache is never stale: what changes gets another key.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
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
        found = _read(path)
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        made = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
        _write(path, made)
        return made


def _read(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file, or None if there is none that can be read."""
    if not path.is_file():
        return None
    try:
        return load_file(path)
    except safetensors.SafetensorError as error:
        logger.warning("cache file %s is damaged (%s) and is made again", path, error)
        return None


def _write(path: Path, tensors: Tensors) -> None:
    """Write a file whole or not at all; of two writers the last one wins, with the same content."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.")
        with os.fdopen(handle, "wb") as file:
            file.write(save(dict(tensors)))
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

    `encode` takes (1 3 h w) in [-1, 1] and must be a function of its input alone: no running noise. `fingerprint`
    names its weights and settings. Latents are stored as `dtype`.
    """

    encode: Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b c hl wl"]]
    fingerprint: str
    dtype: torch.dtype = torch.float32

    def key(self, content: str, view: str) -> str:
        """The key of one view of a picture, by the digest of its bytes."""
        return digest("latents", content, view, self.fingerprint, str(self.dtype))


@dataclass(frozen=True, kw_only=True)
class TextCache:
    """Text embeddings computed once a caption: every variant that shuffling or dropout makes is its own entry.

    `embed` takes one caption and gives its tensors, each with a leading axis of 1.
    """

    cache: Cache
    embed: Callable[[str], Tensors]
    fingerprint: str
    dtype: torch.dtype = torch.float32
    _kept: dict[str, dict[str, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings of captions, row by row, on the CPU."""
        rows = [self._one(caption) for caption in captions]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def _one(self, caption: str) -> dict[str, Tensor]:
        if caption not in self._kept:
            key = digest("text", caption, self.fingerprint, str(self.dtype))
            self._kept[caption] = self.cache.get(key, lambda: self._embedded(caption))
        return self._kept[caption]

    def _embedded(self, caption: str) -> dict[str, Tensor]:
        tensors = self.embed(caption)
        return {
            name: value.to(self.dtype) if value.is_floating_point() else value
            for name, value in tensors.items()
        }


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

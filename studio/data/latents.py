"""Pictures as cached latents: the same order and captions as `Photos`, the encoder asked once a view."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from studio.backend.progress import counted
from studio.backend.rng import mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch
from studio.data import buckets, captions
from studio.data.buckets import View
from studio.data.cache import Cache, Encoder, Tensors, digest
from studio.data.order import Order, generator_for
from studio.data.prefetch import prefetch
from studio.data.source import KEEP_BYTES, Decoder, Photos, take

logger = logging.getLogger(__name__)
_VERSION = "lanczos over white, in sRGB, 2"
"""Part of every key: how a picture becomes pixels. To be counted up when that changes."""


class Latents:
    """A `Source` of what the encoder gives (`latents`, b c h w), `captions`, `sizes`, `rows`, and masks where they are on.

    Each picture has `cache_views` views, fixed by its place in the folder and the view's number: the first share
    `flip` of them mirrored, each with a crop of its own. A row draws one of them.
    """

    def __init__(self, photos: Photos, decoder: Decoder, cache: Cache, encoder: Encoder) -> None:
        self.photos, self.facts = photos, list(photos.facts)
        self._decoder, self._cache, self._encoder = decoder, cache, encoder
        self._digests = [digest(example.record.path.read_bytes()) for example in photos.examples]
        self._kept, self._room = dict[tuple[int, int], Tensors](), KEEP_BYTES
        self._fill()

    def __len__(self) -> int:
        """Number of examples in one pass, repeats counted."""
        return len(self.photos)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches of steps `first`, `first + 1`, ...: the rows of `shard`."""
        order = self.photos.order(seed, shard.total)
        return prefetch(lambda step: self.batch(order, step, shard), first)

    def batch(self, order: Order, step: int, shard: Shard) -> Batch:
        """The rows of a shard at a step."""
        positions = range(step * shard.total + shard.start, step * shard.total + shard.stop)
        settings = self.photos.settings
        views, words, chosen = [], [], order.rows(step, shard.start, shard.stop)
        for index, position in zip(chosen, positions, strict=True):
            generator = generator_for(order.seed, position)
            drawn = buckets.numbers(generator)[0]  # as many as uncached, so that captions vary alike
            views.append(int(drawn * settings.cache_views))
            words.append(captions.vary(self.photos.examples[index].caption, settings.captions, generator))
        rows = list(zip(chosen, views, strict=True))
        encoded = [self._encoded(index, number) for index, number in rows]
        batch: Batch = {name: torch.cat([one[name] for one in encoded]) for name in encoded[0]}
        sizes = [self.photos.examples[index].sizes(self._view(index, number)) for index, number in rows]
        batch |= {"captions": words, "sizes": torch.tensor(sizes), "rows": torch.tensor(list(positions))}
        if settings.masks:
            batch["loss_mask"] = torch.stack([self._pixels(index, number)[3:] for index, number in rows])
        return batch

    def _fill(self) -> None:
        """Ask the encoder for every view before training starts."""
        total = len(self.photos.examples)
        for index in counted(range(total), "latents", total):
            for number in range(self.photos.settings.cache_views):
                self._encoded(index, number)
        self._encoder.done()
        fact = (
            f"latents: {self._cache.hits} from the cache, {self._cache.misses} made, in {self._cache.folder}"
        )
        self.facts.append(fact)
        logger.info(fact)

    def _encoded(self, index: int, number: int) -> Tensors:
        """What the encoder gives of one view."""
        if (index, number) in self._kept:
            return self._kept[index, number]
        example, view = self.photos.examples[index], self._view(index, number)
        described = f"{_VERSION} {example.shape} {example.size} {view}"
        key = self._encoder.key(self._digests[index], described)
        found = self._cache.get(key, lambda: self._encode(index, number))
        size = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
        if size <= self._room:
            self._room -= size
            self._kept[index, number] = found
        return found

    def _encode(self, index: int, number: int) -> Tensors:
        with torch.no_grad():
            made = self._encoder.encode(self._pixels(index, number)[None, :3])
        return {name: tensor.to(self._encoder.dtype) for name, tensor in made.items()}

    def _pixels(self, index: int, number: int) -> Tensor:
        example = self.photos.examples[index]
        return take(self._decoder(example), example.shape, self._view(index, number))

    def _view(self, index: int, number: int) -> View:
        """A view that follows from the picture's bytes and the view's number alone, so that runs share it."""
        settings, example = self.photos.settings, self.photos.examples[index]
        generator = torch.Generator().manual_seed(mix(int(self._digests[index][:15], 16), number))
        flipped = float(number < round(settings.flip * settings.cache_views))
        return buckets.draw_view(example.size, example.shape, settings.crop, flipped, generator)

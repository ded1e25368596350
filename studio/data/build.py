"""From settings to a source of batches. Every refusal comes from here, before training starts."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from studio.data import buckets, layouts
from studio.data import images as reading
from studio.data.at_once import at_once
from studio.data.buckets import Shape
from studio.data.cache import Encoder, open_cache
from studio.data.captions import Words, fill
from studio.data.config import Images
from studio.data.latents import Latents
from studio.data.layouts import Record
from studio.data.source import Decoder, Example, Photos
from studio.errors import StudioError

logger = logging.getLogger(__name__)
NO_WORDS = Words()
HALF = 0.5
_DEFAULT_STEP = 64
_DEFAULT_STEP_FROM = 512


def images(
    settings: Images,
    folder: str | Path,
    *,
    words: Words = NO_WORDS,
    size: int = 512,
    multiple: int = 8,
    encoder: Encoder | None = None,
) -> Photos | Latents:
    """The pictures of a folder as a source: of latents if the settings say so, else of pictures.

    Every picture is decoded once here, so that a bad one is known before training starts.

    Args:
        settings: How pictures become examples.
        folder: Where they are, in any layout that `layouts` knows.
        words: A caption for pictures without one, and what fills the slots of captions.
        size: The model's own resolution, taken when `settings.resolution` is 0.
        multiple: What the model needs a side to be a multiple of.
        encoder: What makes latents; needed when `settings.cache` is on, else not used.

    Raises:
        StudioError: If there are no pictures, a size is not possible, or a picture cannot be used.
        ValueError: If latents are to be cached and nothing makes them.
    """
    if settings.cache != "none" and encoder is None:
        raise ValueError(f"cache {settings.cache!r} needs an encoder")
    found = photos(settings, folder, words=words, size=size, multiple=multiple)
    for fact in found.facts:
        logger.info(fact)
    if settings.cache == "none" or encoder is None:
        return found
    return Latents(found, found.decoder, open_cache(settings), encoder)


def photos(
    settings: Images, folder: str | Path, *, words: Words = NO_WORDS, size: int = 512, multiple: int = 8
) -> Photos:
    """The pictures of a folder as `images` reads them, before anything is computed of them or told."""
    shapes = _shapes(settings, size, multiple)
    found = layouts.find(folder, settings.captions.extension)
    decoder = Decoder()
    examples, bad = _examples(found.records, shapes, words, decoder)
    facts = found.summary.lines() + _refuse_or_skip(bad, settings, len(found.records), Path(folder))
    if settings.masks:
        facts.append(_masks_fact(examples, decoder))
    return Photos(settings, examples, decoder, [*facts, *_shape_facts(examples)])


def _shapes(settings: Images, size: int, multiple: int) -> tuple[Shape, ...]:
    """The shapes that examples may have."""
    resolution = settings.resolution or size
    if resolution % multiple:
        low = max(resolution // multiple, 1) * multiple
        message = f"resolution {resolution} does not divide by {multiple}, which the model needs; use {low} or {low + multiple}."
        raise StudioError(message, field="resolution")
    if not settings.buckets:
        return (Shape(resolution, resolution),)
    step = settings.bucket_step or (_DEFAULT_STEP if resolution >= _DEFAULT_STEP_FROM else multiple)
    if step % multiple or step > resolution:
        message = (
            f"bucket_step {step} must be a multiple of {multiple} and at most the resolution {resolution}."
        )
        raise StudioError(message, field="bucket_step")
    return buckets.shapes(resolution, step)


def _examples(
    records: Sequence[Record], shapes: Sequence[Shape], words: Words, decoder: Decoder
) -> tuple[list[Example], list[reading.BadImageError]]:
    """Usable examples in order, and what is wrong with the others."""

    def attempt(record: Record) -> Example | reading.BadImageError:
        try:
            example = _example(record, shapes, words)
            decoder(example)
        except reading.BadImageError as error:
            return error
        return example

    results = at_once(attempt, records, "pictures")
    good = [result for result in results if isinstance(result, Example)]
    return good, [result for result in results if isinstance(result, reading.BadImageError)]


def _example(record: Record, shapes: Sequence[Shape], words: Words) -> Example:
    """A record with its shape, size and caption."""
    width, height = reading.size(record.path)
    shape = buckets.nearest(width, height, shapes)
    size = buckets.cover_size(width, height, shape)
    if size[0] > reading.MAX_UPSCALE * width:
        side = min(shape.width, shape.height)
        reason = (
            f"has {width} x {height} pixels and would be enlarged {size[0] / width:.0f} times for resolution {side} "
            f"(at most {reading.MAX_UPSCALE} times)"
        )
        raise reading.BadImageError(record.path, reason)
    caption = fill(
        record.caption or words.template, words.token or record.token, words.class_name or record.class_name
    )
    return Example(record=record, shape=shape, size=size, original=(width, height), caption=caption)


def _refuse_or_skip(
    bad: Sequence[reading.BadImageError], settings: Images, num_found: int, folder: Path
) -> list[str]:
    """Facts about pictures left out.

    Raises:
        StudioError: If one may not be left out, or none remains.
    """
    if bad and settings.on_bad == "stop":
        more = f" ({len(bad) - 1} more: run `studio data check {folder}`.)" if len(bad) > 1 else ""
        raise StudioError(f"{bad[0]}{more}", field="on_bad")
    if len(bad) == num_found:
        raise StudioError(
            f"None of the {num_found} pictures in {folder} can be used; the first: {bad[0]}", field="data"
        )
    return [f"skipped {error.path}: it {error.reason}" for error in bad]


def _masks_fact(examples: Iterable[Example], decoder: Decoder) -> str:
    """How many examples have a mask.

    Raises:
        StudioError: If none has.
    """
    masked = sum(bool((decoder(example)[..., 3] < 255).any()) for example in examples)
    if not masked:
        message = (
            "masks is on, but no picture has a mask; add transparency, NAME-masklabel.png or masks/NAME.png, or set "
            "masks to false."
        )
        raise StudioError(message, field="masks")
    return f"{masked} pictures have a mask; the others count whole"


def _shape_facts(examples: Sequence[Example]) -> list[str]:
    counts = Counter(example.shape for example in examples)
    listed = ", ".join(f"{shape.width} x {shape.height} ({count})" for shape, count in sorted(counts.items()))
    cut = [each for each in examples if _kept(each) < HALF]
    named = ", ".join(f"{each.record.path.name} ({_kept(each):.0%} kept)" for each in cut[:3])
    return [
        f"trained at {listed}",
        *([f"{len(cut)} lose most of their area to the crop: {named}"] if cut else []),
    ]


def _kept(example: Example) -> float:
    """Share of a picture's area that its shape shows."""
    return example.shape.width * example.shape.height / (example.size[0] * example.size[1])

"""What `studio data check DIR` finds: pictures that cannot be used, those worth a look, and caption statistics."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import imagehash
import numpy as np
from einops import rearrange
from PIL import Image
from scipy import ndimage

from studio.data import images, layouts
from studio.data.at_once import at_once
from studio.data.config import Images
from studio.data.layouts import Record, Summary, counted

TILES = 4
"""The sharpest of so many by so many tiles counts: a blurred background is no fault of a photo."""
BLURRY = 100.0
"""Variance of the Laplacian (Pech-Pacheco et al. 2000) below which a picture counts as blurry. Measured on DreamBench
at 512 pixels: photos have 234 to 14,074; after a Gaussian blur of 1 pixel 22 to 412, of 2 pixels 3 to 39."""
DUPLICATE = 4
"""Bits of 64 in which the perceptual hashes of near-duplicates differ at most (Zauner 2010)."""
ELONGATED = 3.0
"""Aspect ratio from which on a crop or a bucket loses most of the picture."""
HUGE = 16_384
"""Side from which on a picture is probably a scan or a mistake."""
SHOWN = 60
"""Characters shown of a part of a caption."""
LONG_CAPTION = 60
"""Words from which on a caption may not fit into CLIP's 77 tokens."""

Kind = Literal[
    "unusable",
    "small",
    "huge",
    "elongated",
    "rotated",
    "duplicate",
    "blurry",
    "bad mask",
    "empty mask",
    "long caption",
]
NOTES: dict[Kind, str] = {
    "unusable": "cannot be used",
    "small": "will be enlarged",
    "huge": "has a very long side",
    "elongated": "will lose most of its area to the crop",
    "rotated": "is stored turned; its EXIF orientation is applied",
    "duplicate": "looks the same as another one",
    "blurry": "looks blurry or empty",
    "bad mask": "has a mask that cannot be used",
    "empty mask": "keeps nothing of its picture: with masks on, nothing is learned from it",
    "long caption": "has a caption that may not fit into 77 tokens",
}


@dataclass(frozen=True)
class Finding:
    """One thing about one picture. Only what is `unusable` or a `bad mask` can stop a training."""

    kind: Kind
    path: Path
    detail: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that was found, and whether training can go on."""

    summary: Summary
    findings: tuple[Finding, ...]
    captions: dict[str, float]
    frequent: tuple[tuple[str, int], ...]
    num_usable: int
    resolution: int
    skips: bool

    @property
    def can_train(self) -> bool:
        """Whether training can go on: something can be used, and what cannot may be skipped."""
        stops = any(finding.kind in {"unusable", "bad mask"} for finding in self.findings)
        return self.num_usable > 0 and (self.skips or not stops)

    @property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        bad = self.summary.num_images - self.num_usable
        if self.can_train:
            left = f", {bad} left out" if bad else ""
            return f"Training can go on with {counted(self.num_usable, 'picture')}{left}."
        if not self.num_usable:
            return (
                f"Training cannot go on: none of {counted(self.summary.num_images, 'picture')} can be used."
            )
        return f"Training cannot go on: {bad} of {counted(self.summary.num_images, 'picture')} cannot be used; repair or remove them, or set on_bad to 'skip'."

    def lines(self) -> list[str]:
        """The report as lines of text, worst first."""
        lines = [*self.summary.lines(), *self._caption_lines()]
        for kind, note in NOTES.items():
            found = [finding for finding in self.findings if finding.kind == kind]
            if found:
                lines.append(f"{kind}: {len(found)} ({note})")
                lines += [f"  {finding.path}: {finding.detail}" for finding in found]
        return [*lines, self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """The report for machines."""
        return {
            "folder": str(self.summary.folder),
            "images": self.summary.num_images,
            "usable": self.num_usable,
            "can_train": self.can_train,
            "verdict": self.verdict,
            "resolution": self.resolution,
            "layouts": self.summary.layouts,
            "classes": self.summary.classes,
            "masks": self.summary.num_masks,
            "captions": {
                "count": self.summary.num_captions,
                **self.captions,
                "frequent": dict(self.frequent),
            },
            "findings": [
                {"kind": finding.kind, "path": str(finding.path), "detail": finding.detail}
                for finding in self.findings
            ],
        }

    def _caption_lines(self) -> list[str]:
        if not self.captions:
            return ["captions: none; the method's own prompt is used"]
        numbers = self.captions
        words = f"{numbers['min_words']:.0f} to {numbers['max_words']:.0f} words, {numbers['mean_words']:.1f} on average"
        tags = ", ".join(f"{shorten(tag, SHOWN)!r} {count}" for tag, count in self.frequent)
        return [f"captions: {words}; {numbers['distinct']:.0f} distinct", f"most frequent parts: {tags}"]


@dataclass(frozen=True)
class _Look:
    """What one picture gave: findings and its perceptual hash (None if it cannot be used)."""

    findings: tuple[Finding, ...]
    bits: np.ndarray | None


def check(folder: str | Path, settings: Images, *, size: int = 512) -> Report:
    """Look at every picture of a folder.

    Args:
        folder: Where they are, in any layout.
        settings: How they would be used; their resolution decides what is small.
        size: The resolution if `settings.resolution` is 0.

    Raises:
        StudioError: If there are no pictures at all.
    """
    found = layouts.find(folder, settings.captions.extension)
    resolution = settings.resolution or size
    looks = at_once(lambda record: _look(record, resolution), found.records, "pictures")
    findings = [finding for look in looks for finding in look.findings]
    findings += _duplicates(found.records, looks)
    texts = [record.caption for record in found.records if record.caption]
    parts = Counter(part.strip() for text in texts for part in text.split(",") if part.strip())
    return Report(
        summary=found.summary,
        findings=tuple(findings),
        captions=_caption_numbers(texts),
        frequent=tuple(parts.most_common(8)),
        num_usable=sum(look.bits is not None for look in looks),
        resolution=resolution,
        skips=settings.on_bad == "skip",
    )


def sharpness(picture: Image.Image, resolution: int) -> float:
    """Variance of the Laplacian in the sharpest tile of the gray picture, at the resolution it is trained at."""
    scale = min(resolution / min(picture.size), 1)
    small = picture.convert("L").resize(
        (max(round(picture.width * scale), TILES), max(round(picture.height * scale), TILES)),
        Image.Resampling.LANCZOS,
    )
    edges = ndimage.laplace(np.asarray(small, dtype=np.float64))
    height, width = (side // TILES * TILES for side in edges.shape)
    tiles = rearrange(edges[:height, :width], "(r h) (k w) -> (r k) (h w)", r=TILES, k=TILES)
    return float(tiles.var(axis=1).max())


def _look(record: Record, resolution: int) -> _Look:
    """Decode one picture and say what is worth saying."""
    try:
        picture = images.read(record.path, needed=resolution)
    except images.BadImageError as error:
        return _Look((Finding("unusable", record.path, str(error.reason)),), None)
    notes = [*_size_notes(record.path, picture.size, resolution), *_file_notes(record, picture.mask)]
    if notes and notes[0].kind == "unusable":
        return _Look(tuple(notes), None)
    blur = sharpness(picture.rgb, resolution)
    if blur < BLURRY:
        notes.append(
            Finding(
                "blurry",
                record.path,
                f"sharpest part has a variance of the Laplacian of {blur:.0f}, below {BLURRY:.0f}",
            )
        )
    bad_mask = any(note.kind == "bad mask" for note in notes)
    return _Look(tuple(notes), None if bad_mask else imagehash.phash(picture.rgb).hash.flatten())


def _size_notes(path: Path, size: tuple[int, int], resolution: int) -> list[Finding]:
    """What the size says."""
    width, height = size
    scale = resolution / min(size)
    text = f"{width} x {height} pixels"
    notes: list[Finding] = []
    if scale > images.MAX_UPSCALE:
        notes.append(
            Finding("unusable", path, f"has {text}, to be enlarged {scale:.0f} times for {resolution}")
        )
    elif scale > 1:
        notes.append(Finding("small", path, f"{text}, to be enlarged {scale:.1f} times for {resolution}"))
    if max(size) >= HUGE:
        notes.append(Finding("huge", path, text))
    if max(size) > ELONGATED * min(size):
        notes.append(Finding("elongated", path, text))
    return notes


def _file_notes(record: Record, within: Image.Image | None) -> list[Finding]:
    """What the orientation, the mask and the caption say."""
    notes: list[Finding] = []
    with Image.open(record.path) as file:
        orientation = file.getexif().get(0x112, 1)
    if orientation != 1:
        notes.append(Finding("rotated", record.path, f"EXIF orientation {orientation}"))
    try:
        mask = within if record.mask is None else images.read_mask(record.mask)
        if mask is not None and not np.asarray(mask).any():
            notes.append(
                Finding("empty mask", record.mask or record.path, "is black or transparent all over")
            )
    except images.BadImageError as error:
        notes.append(Finding("bad mask", Path(error.path), error.reason))
    if (words := len(record.caption.split())) > LONG_CAPTION:
        notes.append(Finding("long caption", record.path, f"{words} words"))
    return notes


def _duplicates(records: Sequence[Record], looks: Sequence[_Look]) -> list[Finding]:
    """Pictures whose perceptual hash is near that of an earlier one."""
    seen = [
        (record.path, look.bits) for record, look in zip(records, looks, strict=True) if look.bits is not None
    ]
    if not seen:
        return []
    signs = np.stack([bits for _, bits in seen]).astype(np.float32) * 2 - 1
    notes: list[Finding] = []
    for index in range(1, len(seen)):
        differing = (signs.shape[1] - signs[:index] @ signs[index]) / 2
        nearest = int(differing.argmin())
        if differing[nearest] <= DUPLICATE:
            detail = f"as {seen[nearest][0]} ({differing[nearest]:.0f} of {signs.shape[1]} hash bits differ)"
            notes.append(Finding("duplicate", seen[index][0], detail))
    return notes


def _caption_numbers(texts: Sequence[str]) -> dict[str, float]:
    """Statistics of the captions; none if there are none."""
    if not texts:
        return {}
    counts = [len(text.split()) for text in texts]
    return {
        "min_words": float(min(counts)),
        "max_words": float(max(counts)),
        "mean_words": statistics.fmean(counts),
        "distinct": float(len(set(texts))),
    }

r"""Weights inside a prompt, written as AUTOMATIC1111 writes them and applied as ComfyUI and compel apply them.

    (cat)  1.1      ((cat))  1.21      (cat:1.4)  1.4      [cat]  1 / 1.1      \( \) \[ \]  the bracket itself

Each row moves along the line from the empty prompt's row: z_w = z_0 + w (z - z_0). That works for CLIP and T5, last or
penultimate layer alike. AUTOMATIC1111 multiplies the rows and restores their mean instead, which suits SD 1.x only.

Axes: `b` prompts, `n` rows, `m` rows of an empty prompt, `d` width.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError

STEP = 1.1
"""What one pair of round brackets multiplies by, and a pair of square ones divides by."""
DEEPEST = 100
"""Brackets that may be open at once; weights beyond are of no use, and take long."""
_TOKEN = re.compile(r"\\[()\[\]\\]|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|[()\[\]]|[^\\()\[\]:]+|.", re.DOTALL)

Weighted = list[tuple[str, float]]


def parse(prompt: str) -> Weighted:
    """Pieces of a prompt with their weights; a bracket that is never closed weighs to the end.

    Raises:
        StudioError: Brackets stand in more brackets than anybody means.
    """
    pieces: Weighted = []
    open_at: dict[str, list[int]] = {"(": [], "[": []}
    for found in _TOKEN.finditer(prompt):
        text = found.group(0)
        if text in open_at:
            open_at[text].append(len(pieces))
            _refuse_deep(open_at[text], text)
        elif found.group(1) is not None and open_at["("]:
            _multiply(pieces, open_at["("].pop(), float(found.group(1)))
        elif text == ")" and open_at["("]:
            _multiply(pieces, open_at["("].pop(), STEP)
        elif text == "]" and open_at["["]:
            _multiply(pieces, open_at["["].pop(), 1 / STEP)
        else:
            pieces.append((text[1:] if len(text) == 2 and text[0] == "\\" else text, 1.0))
    for start in open_at["("]:
        _multiply(pieces, start, STEP)
    for start in open_at["["]:
        _multiply(pieces, start, 1 / STEP)
    return _joined(pieces) or [("", 1.0)]


def _refuse_deep(opened: Sequence[int], bracket: str) -> None:
    if len(opened) > DEEPEST:
        raise StudioError(
            f"A prompt has more than {DEEPEST} brackets {bracket} open at once; close or remove them.",
            field="prompt",
        )


def _multiply(pieces: Weighted, start: int, factor: float) -> None:
    pieces[start:] = [(text, weight * factor) for text, weight in pieces[start:]]


def _joined(pieces: Weighted) -> Weighted:
    """Neighbors of one weight as one piece."""
    groups = itertools.groupby(pieces, key=lambda piece: piece[1])
    return [("".join(text for text, _ in group), weight) for weight, group in groups]


def numbers(tokenizer: Any, prompt: str, *, weighted: bool) -> tuple[list[int], list[float]]:
    """Token numbers of a prompt without begin and end, and the weight of each."""
    ids: list[int] = []
    weights: list[float] = []
    for text, weight in parse(prompt) if weighted else [(prompt, 1.0)]:
        found = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        ids += found
        weights += [weight] * len(found)
    return ids, weights


def marked(prompts: Sequence[str]) -> bool:
    """Whether any prompt carries a weight or an escaped bracket."""
    return any(parse(prompt) != [(prompt, 1.0)] for prompt in prompts)


def weigh(
    rows: Float[Tensor, "b n d"], weights: Float[Tensor, "b n"], empty: Float[Tensor, "1 m d"]
) -> Float[Tensor, "b n d"]:
    """Rows moved by their weights; rows of weight 1 stay bit for bit. n is a multiple of m (parts of long prompts)."""
    base = repeat(empty, "1 m d -> 1 (k m) d", k=rows.shape[1] // empty.shape[1])
    w = weights.to(rows).unsqueeze(-1)
    return torch.where(w == 1, rows, base + w * (rows - base))

"""Updates of several layers of ours as one of the original layer that they are made of."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from studio.adapters.dialects.place import Place
from studio.adapters.targets import root
from studio.adapters.updates import Additive, Difference, Hadamard, LowRank, Update
from studio.errors import StudioError


def fused(pieces: Sequence[Update | None], where: Place, module: nn.Module) -> Update:
    """One update for a layer that stacks the outputs of several of ours; zero where there is no piece.

    Args:
        pieces: The updates of its layers, in order; None where a layer has none.
        where: The place.
        module: The component, whose weights tell the sizes.

    Raises:
        StudioError: Updates that are none together: LoKr, magnitudes of columns, or several kinds.
    """
    if len(pieces) == 1 and pieces[0] is not None:
        return _swapped(pieces[0], where) if where.swapped else pieces[0]
    require_together(pieces, where)
    weights = [root(module.get_submodule(layer)).weight for layer in where.ours]
    there = [piece for piece in pieces if piece is not None]
    widths = [len(weight) for weight in weights]
    additive = _together([None if piece is None else piece.additive for piece in pieces], widths, where)
    magnitude = None
    if any(piece.magnitude is not None for piece in there):
        magnitude = torch.cat(
            [_lengths(piece, weight) for piece, weight in zip(pieces, weights, strict=True)]
        )
    bias = None
    if any(piece.bias is not None for piece in there):
        own = [None if piece is None else piece.bias for piece in pieces]
        bias = torch.cat([torch.zeros(w) if b is None else b for b, w in zip(own, widths, strict=True)])
    return Update(additive, magnitude, there[0].norm, bias)


def require_together(pieces: Sequence[Update | None], where: Place) -> None:
    """Refuse what has no form as one layer, by its kind alone.

    Raises:
        StudioError: Updates that are none together: LoKr, magnitudes of columns, or several kinds.
    """
    there = [piece for piece in pieces if piece is not None]
    if len(where.ours) == 1 and not where.swapped:
        return
    own = [piece.additive for piece in there if piece.additive is not None]
    whole = all(
        isinstance(one, LowRank | Difference) or (isinstance(one, Hadamard) and not one.kernels)
        for one in own
    )
    if not whole or len({type(one) for one in own}) > 1 or any(piece.by_columns for piece in there):
        raise _apart(where)


def _together(parts: Sequence[Additive | None], widths: list[int], where: Place) -> Additive | None:
    first = next((one for one in parts if one is not None), None)
    match first:
        case None:
            return None
        case LowRank():
            return _low_rank([one for one in parts if isinstance(one, LowRank | None)], widths)
        case Hadamard(kernels=None):
            return _hadamard([one for one in parts if isinstance(one, Hadamard | None)], widths)
        case Difference():
            shapes = [torch.Size((width, *first.diff.shape[1:])) for width in widths]
            rows = [
                torch.zeros(s) if one is None else one.change(s) for one, s in zip(parts, shapes, strict=True)
            ]
            return Difference(torch.cat(rows))
        case _:
            raise _apart(where)


def _low_rank(parts: Sequence[LowRank | None], widths: list[int]) -> LowRank:
    """Block-diagonal factors."""
    there = [one for one in parts if one is not None]
    rank, scale = max(one.rank for one in there), there[0].scale
    down = there[0].down.new_zeros(rank * len(parts), *there[0].down.shape[1:])
    up = there[0].up.new_zeros(sum(widths), rank * len(parts), *there[0].up.shape[2:])
    for i, one in enumerate(parts):
        if one is not None:
            rows, columns = sum(widths[:i]), i * rank
            down[columns : columns + one.rank] = one.down
            up[rows : rows + widths[i], columns : columns + one.rank] = one.up * (one.scale / scale)
    return LowRank(down, up, scale * rank * len(parts))


def _hadamard(parts: Sequence[Hadamard | None], widths: list[int]) -> Hadamard:
    """Block-diagonal first factors, whose products stand below each other."""
    there = [one for one in parts if one is not None]
    alphas = [1.0 if one is None else one.scale / there[0].scale for one in parts]
    pairs: list[tuple[Tensor, Tensor]] = []
    for side in ("w1", "w2"):
        own = [None if one is None else getattr(one, side) for one in parts]
        left = [
            torch.zeros(w, there[0].rank) if one is None else one[0]
            for one, w in zip(own, widths, strict=True)
        ]
        right = [torch.zeros_like(there[0].w1[1]) if one is None else one[1] for one in own]
        left = [a * s for a, s in zip(left, alphas, strict=True)] if side == "w1" else left
        pairs.append((torch.block_diag(*left), torch.cat(right)))
    return Hadamard(pairs[0], pairs[1], there[0].scale * len(pairs[0][1]))


def _lengths(piece: Update | None, weight: Tensor) -> Tensor:
    """The magnitudes of a piece; without one, those that change nothing."""
    if piece is not None and piece.magnitude is not None:
        return piece.magnitude.float().cpu()
    if piece is None:
        return weight.detach().float().flatten(1).norm(dim=1).cpu()
    return (weight.detach().float().cpu() + piece.change(weight.detach().cpu())).flatten(1).norm(dim=1)


def _swapped(piece: Update, where: Place) -> Update:
    """The halves of the rows the other way round."""

    def turned(value: Tensor) -> Tensor:
        return torch.cat(value.chunk(2)[::-1])

    own = piece.additive
    if isinstance(own, LowRank):
        own = replace(own, up=turned(own.up))
    elif isinstance(own, Hadamard) and own.kernels is None:
        own = replace(own, w1=(turned(own.w1[0]), own.w1[1]), w2=(turned(own.w2[0]), own.w2[1]))
    elif isinstance(own, Difference):
        own = Difference(turned(own.diff))
    elif own is not None:
        raise _apart(where)
    magnitude = piece.magnitude if piece.magnitude is None or piece.by_columns else turned(piece.magnitude)
    return Update(own, magnitude, piece.norm, None if piece.bias is None else turned(piece.bias))


def _apart(where: Place) -> StudioError:
    return StudioError(
        f"{', '.join(where.ours)} are the one layer {where.native} in kohya and comfy files, where their adapters are none together; "
        "export peft or merged instead, or adapt other layers with adapter.only.",
        field="export.formats",
    )

"""A file of an adapter in any dialect, to updates of a model's layers."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from studio.adapters.dialects.dialect import Spot, table
from studio.adapters.dialects.known import DIALECTS
from studio.adapters.dialects.roles import UNREAD, finite, made_of, role_of
from studio.adapters.targets import root
from studio.adapters.updates import Additive, LowRank, Rows, Update, Updates, kinds
from studio.catalog.family import FamilyCard
from studio.errors import StudioError

WORDS = "bundle_emb."
"""In front of the vectors of words that a LoRA brings along (A1111, OneTrainer)."""
BASE_NORM = "studio.dora_norm"
"""Metadata of files whose magnitudes are divided by the lengths of the base weight's rows, as ComfyUI computes it."""


@dataclass(frozen=True)
class Reading:
    """What a file holds.

    Attributes:
        updates: By component and layer of ours.
        dialect: The spelling of most of its keys.
        layers: How many layers the file itself counts.
        words: Vectors of words that it brings along, by word, as in files of embeddings.
    """

    updates: Updates
    dialect: str
    layers: int
    words: Mapping[str, Mapping[str, Tensor]]

    def told(self, title: str) -> str:
        """One line: kohya LoRA for SDXL, 722 layers, rank 32, alpha 16."""
        kind = " and ".join(kinds(self.updates)) or "words"
        found = [one.additive for layers in self.updates.values() for one in layers.values() if one.additive]
        parts = [f"{self.dialect} {kind} for {title}, {self.layers} layers"]
        ranks = sorted({one.rank for one in found if one.rank})
        parts += [f"rank {_span(ranks)}"] if ranks else []
        alphas = sorted({round(alpha, 4) for one in found if (alpha := _alpha(one)) is not None})
        parts += [f"alpha {_span(alphas)}"] if alphas else []
        return ", ".join(parts)


def read_updates(
    values: Mapping[str, Tensor],
    header: Mapping[str, str],
    card: FamilyCard,
    modules: Mapping[str, nn.Module],
) -> Reading:
    """The updates that a file's tensors are, for models of any width.

    Args:
        values: The file's tensors.
        header: Its metadata.
        card: The family of the model.
        modules: The model's parts, by component.

    Raises:
        StudioError: A key that belongs to no layer of the model, a part that is missing, a number that is none, or a size that
            does not fit.
    """
    words, rest = _words(values)
    if broken := finite({key: value for key, value in rest.items() if value.dtype not in _EIGHT}):
        raise StudioError(
            f"{broken!r} holds numbers that are not finite; the training that wrote it broke, take an earlier file."
        )
    spots = table(card, modules, DIALECTS)
    parts, odd = _by_stem(rest, spots)
    if odd:
        raise _unknown(odd, card)
    told = _Told(header)
    found: Updates = {}
    for stem, own in parts.items():
        spot = spots[stem]
        update = made_of(own, stem, told.alpha(spot, own))
        if BASE_NORM in header and update.magnitude is not None:
            update = replace(update, norm="base")
        for layer, piece in split(update, spot, modules[spot.component]).items():
            _require_fit(piece, layer, card, modules[spot.component])
            found.setdefault(spot.component, {})[layer] = piece
    dialects = Counter(spots[stem].dialect for stem in parts)
    return Reading(found, dialects.most_common(1)[0][0] if dialects else "", len(parts), words)


_EIGHT = (torch.float8_e4m3fn, torch.float8_e5m2)
"""Types that torch can do little with."""


def _by_stem(
    values: Mapping[str, Tensor], spots: Mapping[str, Spot]
) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Tensors by start of key and role; and keys of nothing that is known."""
    found: dict[str, dict[str, Tensor]] = {}
    odd: list[str] = []
    for key, value in values.items():
        named = role_of(key)
        if named is None or named[0] not in spots:
            odd.append(key)
            continue
        found.setdefault(named[0], {})[named[1]] = value.float() if value.dtype in _EIGHT else value
    return found, sorted(odd)


def _unknown(odd: list[str], card: FamilyCard) -> StudioError:
    """What to say of keys that belong to nothing."""
    for part, what in UNREAD.items():
        if any(part in key for key in odd):
            return StudioError(f"The file is {what} (first {odd[0]!r}), which is not read; merge it into its base with the tool "
                               "that made it, and give that model.")  # fmt: skip
    return StudioError(
        f"{len(odd)} tensors of the LoRA file belong to no layer of the {card.name} model, first {odd[0]!r}; "
        "it was made for another model family or holds more than a LoRA."
    )


def _words(values: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Vectors of words, and the rest."""
    words: dict[str, dict[str, Tensor]] = {}
    for key in [key for key in values if key.startswith(WORDS)]:
        word, _, end = key.removeprefix(WORDS).partition(".")
        words.setdefault(word, {})["emb_params" if end.startswith("string_to_param") else end] = values[key]
    return words, {key: value for key, value in values.items() if not key.startswith(WORDS)}


class _Told:
    """Alphas that a file's metadata says: diffusers' entry, which is PEFT's settings of each component."""

    def __init__(self, header: Mapping[str, str]) -> None:
        """Read the entry, if there is one."""
        entry = header.get("lora_adapter_metadata", "")
        self.settings: dict[str, object] = json.loads(entry) if entry else {}

    def alpha(self, spot: Spot, parts: Mapping[str, Tensor]) -> float | None:
        """The alpha of a layer, such that alpha / rank is its scale; None if nothing is said."""
        alpha = self._of(spot, "alpha_pattern", "lora_alpha")
        if alpha is None or "down" not in parts:
            return alpha
        rank = len(parts["down"])
        return alpha * rank**0.5 if self.settings.get(f"{spot.component}.use_rslora") else alpha

    def _of(self, spot: Spot, pattern: str, default: str) -> float | None:
        patterns = self.settings.get(f"{spot.component}.{pattern}")
        layer = spot.layers[0]
        for end, value in patterns.items() if isinstance(patterns, dict) else ():
            if layer == end.lstrip("^") or layer.endswith(f".{end}"):
                return float(value)
        told = self.settings.get(f"{spot.component}.{default}")
        return float(told) if isinstance(told, (int, float)) else None


def split(update: Update, spot: Spot, module: nn.Module) -> dict[str, Update]:
    """The pieces of an update by our layers; those of a LoRA that are zero are left out.

    Raises:
        StudioError: Magnitudes of columns on a layer that is several of ours.
    """
    layers = spot.layers
    if len(layers) == 1 and not spot.swapped:
        return {layers[0]: update}
    if update.by_columns:
        raise StudioError(f"{layers[0]} is a part of a layer whose columns have magnitudes (DoRA with wd_on_output=False), which "
                          "cannot be taken apart; merge the file into its base with the tool that made it.")  # fmt: skip
    widths = [int(root(module.get_submodule(layer)).weight.shape[0]) for layer in layers]
    starts = [sum(widths[:i]) for i in range(len(widths))]
    ranges = {
        layer: ((start, start + width),) for layer, start, width in zip(layers, starts, widths, strict=True)
    }
    if spot.swapped:
        half = widths[0] // 2
        ranges = {layers[0]: ((half, widths[0]), (0, half))}
    found = {layer: _piece(update, sum(widths), own) for layer, own in ranges.items()}
    if isinstance(update.additive, LowRank) and not spot.swapped and update.magnitude is None:
        return _lean(found, update.additive, layers)
    return found


def _piece(update: Update, total: int, ranges: tuple[tuple[int, int], ...]) -> Update:
    """Rows of an update."""

    def rows(value: Tensor) -> Tensor:
        return torch.cat([value[start:stop] for start, stop in ranges])

    additive = update.additive
    if isinstance(additive, LowRank):
        additive = replace(additive, up=rows(additive.up))
    elif additive is not None and not isinstance(additive, Rows):
        additive = Rows(additive, total, ranges)
    magnitude = None if update.magnitude is None else rows(update.magnitude)
    return Update(additive, magnitude, update.norm, None if update.bias is None else rows(update.bias))


def _lean(pieces: dict[str, Update], whole: LowRank, layers: tuple[str, ...]) -> dict[str, Update]:
    """Pieces of a LoRA without the directions that are zero in them, where it was made of as many as there are layers."""
    rank = whole.rank // len(layers)
    found = dict(pieces)
    if whole.rank % len(layers) == 0:
        lean: dict[str, Update] = {}
        for i, (layer, piece) in enumerate(pieces.items()):
            own, columns = piece.additive, slice(i * rank, (i + 1) * rank)
            assert isinstance(own, LowRank)  # noqa: S101  # so `split` made them
            inside = own.up[:, columns]
            if torch.count_nonzero(own.up) != torch.count_nonzero(inside):
                break
            lean[layer] = replace(piece, additive=LowRank(own.down[columns], inside, own.alpha / len(layers)))
        else:
            found = lean
    return {layer: piece for layer, piece in found.items() if _moves(piece)}


def _moves(piece: Update) -> bool:
    low = piece.additive
    return piece.bias is not None or (isinstance(low, LowRank) and bool(low.up.any() or low.down.any()))


def _require_fit(update: Update, layer: str, card: FamilyCard, module: nn.Module) -> None:
    """Refuse what has other sizes than the layer.

    Raises:
        StudioError: It has.
    """
    weight = weight_shape(module.get_submodule(layer))
    rows, row = weight[0], weight[1:].numel()
    if update.additive is not None and update.additive.sizes != (rows, row):
        theirs = " x ".join(map(str, update.additive.sizes))
        raise StudioError(
            f"It does not fit the {card.name} model: size mismatch for {layer}, which is {rows} x {row} there and {theirs} in the "
            "file; load it on its own base."
        )


def weight_shape(layer: nn.Module) -> torch.Size:
    """Shape of a layer's weight, quantized or not."""
    below = root(layer)
    if isinstance(below, nn.Linear):
        return torch.Size((below.out_features, below.in_features))
    return below.weight.shape


def _alpha(additive: Additive) -> float | None:
    own = additive.whole if isinstance(additive, Rows) else additive
    return getattr(own, "alpha", None)


def _span(values: list) -> str:
    low, high = values[0], values[-1]
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"

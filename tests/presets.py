"""All presets, method by method and family by family, in `docs/presets.md`: `python -m tests.presets` writes it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio.catalog import families, methods, presets
from studio.catalog.cards import Card, Preset
from studio.settings import serial
from studio.settings.run import Loop, Optim

FILE = Path(__file__).resolve().parent.parent / "docs" / "presets.md"
HEAD = """# Presets

What `studio train METHOD --model NAME` starts from. A preset is taken by what the model is (its family, how it was trained to draw, its
size) and by what of it trains (an adapter, or all weights), whatever its name or file is called; a run stands for the model that it
started from. The run says which one it took and why, and records it; `--preset NAME` takes another, `--preset none` the method's defaults.
`--print-config` shows every value with where it is from. Where no preset suits, a warning says so.

The tables are made from the cards of methods and families by `python -m tests.presets`.
"""


def drawing_methods() -> list[str]:
    """Methods that train a model that draws pictures."""
    return [name for name in methods.ours() if _draws(methods.card(name))]


def _draws(card: Card) -> bool:
    return bool(card.trainer) and bool(card.presets) and "text-to-image" in card.offers


_CLIPS = ("ViT-B-16", "openai/clip-vit-base-patch16", "google/siglip2-base-patch16-224")
_VITS = ("vit_small_patch16_224.augreg_in21k_ft_in1k", "deit3_small_patch16_224.fb_in22k_ft_in1k",
         "swin_tiny_patch4_window7_224.ms_in1k", "vit_base_patch14_dinov2.lvd142m")  # fmt: skip
_CONVNETS = ("convnext_tiny.fb_in22k_ft_in1k", "resnet50.a1_in1k")
_CHATS = ("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "Qwen/Qwen2.5-VL-3B-Instruct", "google/gemma-3-4b-it")
BY_NAME: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    *(("clip", ("tuning", kind), _CLIPS)
      for kind in ("whole", "adapted", "adapt-former", "probe", "lp-ft", "coop", "cocoop", "maple", "promptsrc")),
    *(("ogen", ("tuning", kind), _CLIPS) for kind in ("coop", "maple", "promptsrc", "adapted", "whole")),
    ("cola", (), _CLIPS),
    *(("vit", ("tuning", kind), _VITS + _CONVNETS) for kind in ("whole", "linear-probe", "lp-ft", "adapted")),
    ("vit", ("tuning", "adapt-former"), _VITS[:2]),
    *((method, (), _VITS + _CONVNETS) for method in ("adversarial", "arrest")),
    ("vit_nullspace", (), _VITS[:2]),
    *((method, ("adapter", kind), _CHATS) for method in ("vlm", "cafe") for kind in ("lora", "full")),
)  # fmt: skip
"""Methods, the setting that says what moves, and real names of models."""


def render() -> str:
    """The page."""
    parts = [HEAD, "## Which one by itself\n", "\n".join(_families()), ""]
    parts += ["## What vision and chat models get\n", _BY_NAME, "\n".join(_by_name()), ""]
    for name in methods.ours():
        card = methods.card(name)
        if card.trainer and card.presets:
            parts += [f"## {card.title}\n", f"`studio train {name}`\n", "\n".join(_presets(card)), ""]
    return "\n".join(parts)


def _families() -> Iterator[str]:
    """A row a method, a column a family: the preset for its usual choice, and for all weights where that is another."""
    cards = families.cards().values()
    yield "| method | small U-Nets | small transformers | " + " | ".join(card.title for card in cards) + " |"
    yield "| --- " * (len(cards) + 3) + "|"
    for name in drawing_methods():
        card = methods.card(name)
        cells = [_cell(card, "studio-tiny"), _cell(card, "studio-tiny-dit")]
        cells += [_cell(card, family.variants[0].name) for family in cards]
        yield f"| {card.title} | " + " | ".join(cells) + " |"


_BY_NAME = """As `studio train METHOD FLAGS --model NAME --print-config` says; the sources are those of the presets below.
"""


def _by_name() -> Iterator[str]:
    """A row for each preset that the names of a method and what moves get."""
    yield "| method | flags | models | preset | rate | schedule | warm-up | batch |"
    yield "| --- " * 8 + "|"
    for method, given, names in BY_NAME:
        card = methods.card(method)
        runs: dict[tuple[str, ...], list[str]] = {}
        for name in names:
            chosen = presets.choose(card, {"model": name, **dict([given] if given else [])}).name
            runs.setdefault(_told(chosen, presets.values_of(card, chosen)), []).append(f"`{name}`")
        for told, group in runs.items():
            flag = f"`--{' '.join(given)}`" if given else ""
            yield f"| {method} | {flag} | {', '.join(group)} | {' | '.join(told)} |"


def _told(chosen: str, values: dict[str, Any]) -> tuple[str, ...]:
    """Preset, rate, schedule, warm-up and batch."""
    optim, loop = dataclasses.asdict(Optim()) | values.get("optim", {}), values.get("loop", {})
    size, parts = loop.get("batch_size", Loop().batch_size), loop.get("accumulate", 1)
    rate = f"{optim['lr']:g}" + (f" ({optim['name']})" if optim["name"] != Optim().name else "")
    cut = f" in {parts} parts" if parts > 1 else ""
    return chosen, rate, optim["schedule"], f"{optim['warmup']}", f"{size}{cut}"


def _cell(card: Card, model: str) -> str:
    usual = presets.choose(card, {"model": model}).name
    if "adapter" not in serial.hints(card.config) or len(_kinds(card)) < 2:  # what trains is no choice
        return usual
    other = {kind: presets.choose(card, {"model": model, "adapter": kind}).name for kind in ("lora", "full")}
    found = dict.fromkeys([usual, *other.values()])
    return ", ".join(found)


def _kinds(card: Card) -> tuple[type, ...]:
    return serial.members(serial.hints(card.config)["adapter"])


def _presets(card: Card) -> Iterator[str]:
    yield "| preset | for | values | source |"
    yield "| --- | --- | --- | --- |"
    for name, preset in card.presets.items():
        values = serial.flatten(serial.nest(dict(preset.values)))
        told = ", ".join(f"{path.removeprefix('method.')} {_shown(value)}" for path, value in values.items())
        yield f"| `{name}` | {suited(preset)} | {told} | {preset.note} |".replace("|c", "\\|c")


def suited(preset: Preset) -> str:
    """For which runs a preset is taken by itself, in words."""
    suits = preset.suits
    if suits is None:
        return "by its name alone"
    titles = {name: card.title for name, card in families.cards().items()}
    process = {"flow": "flow matching", "discrete": "noise prediction", "": ""}[suits.process]
    words = [
        {True: "small models", False: "published models", None: ""}[suits.small],
        {True: "random weights", False: "trained weights", None: ""}[suits.fresh],
        ", ".join(titles.get(name, name) for name in suits.families),
        process,
        {True: "distilled", False: "not distilled", None: ""}[suits.distilled],
        f"{suits.billions:g}B or more" if suits.billions else "",
        " or ".join(suits.networks),
        f"trains: {' or '.join(suits.chosen)}" if suits.chosen else "",
        ", ".join(f"`{name}`" for name in suits.names),
    ]
    return "; ".join(word for word in words if word) or "any model"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")

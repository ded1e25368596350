"""All presets, method by method and family by family, in `docs/presets.md`: `python -m tests.presets` writes it."""

from collections.abc import Iterator
from pathlib import Path

from studio.catalog import families, methods, presets
from studio.catalog.cards import Card, Preset
from studio.settings import serial

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


def render() -> str:
    """The page."""
    parts = [HEAD, "## Which one by itself\n", "\n".join(_families()), ""]
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

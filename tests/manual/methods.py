"""A page a method, from its card, its settings, and what the README and the guides say of it."""

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from studio.catalog import methods
from studio.catalog.cards import Card, Preset
from studio.catalog.run import Run
from studio.flags.names import flag
from studio.settings import serial
from tests import tree
from tests.manual import settings
from tests.presets import suited

ROW = re.compile(r"^\| ([^|]+) \| ((?:`\w+`(?:, )?)+) \| ([^|]+) \| ([^|]+) \|$", flags=re.MULTILINE)
GUIDES = sorted((tree.ROOT / "docs").glob("*.md"))
DOCSTRING = """
::: {module}
    options:
      members: false
      show_root_heading: false
      show_root_toc_entry: false
"""


class Shelf(NamedTuple):
    """A row of the README's table of methods."""

    title: str
    names: tuple[str, ...]
    what: str
    guides: str


def shelves() -> list[Shelf]:
    """The methods by what they are for, as the README has them."""
    readme = tree.README.read_text(encoding="utf-8")
    rows = (match.groups() for match in ROW.finditer(readme))
    return [
        Shelf(title, tuple(re.findall(r"\w+", names)), what, guides) for title, names, what, guides in rows
    ]


def pages() -> dict[str, str]:
    """Where each generated page is, and its text, whose links are as in the README."""
    found = {f"methods/{name}.md": page(name, shelf) for shelf in shelves() for name in shelf.names}
    return found | {"methods/index.md": index(), "methods/run.md": run()}


def nav() -> list[object]:
    """The part of the navigation that is the methods."""
    parts = [
        {shelf.title: [{methods.card(name).title: f"methods/{name}.md"} for name in shelf.names]}
        for shelf in shelves()
    ]
    return ["methods/index.md", *parts, {"Settings of every run": "methods/run.md"}]


def index() -> str:
    """All methods on one page."""
    lines = [
        "# Methods",
        "Each page has the paper, commands, presets and every setting. [Settings of every run](run.md).",
    ]
    for shelf in shelves():
        cards = [methods.card(name) for name in shelf.names]
        rows = [
            f"| [{c.title}]({c.name}.md) | `{c.name}` | {c.summary} | {_linked(c.paper)} |" for c in cards
        ]
        head = ["| method | name | what it does | paper |", "| --- | --- | --- | --- |"]
        lines += [f"## {shelf.title}", f"{shelf.what[0].upper()}{shelf.what[1:]}.", "\n".join([*head, *rows])]
    return "\n\n".join(lines) + "\n"


def run() -> str:
    """The settings that every training run has."""
    lines = ["# Settings of every run", "What `studio train METHOD` takes besides the method's own settings."]
    body = (part for part in settings.section(Run, flag) if not part.startswith("| `--method`"))
    text = "\n\n".join([*lines, *body])
    return re.sub(r"^\| `--method` .*\n", "", text, flags=re.MULTILINE) + "\n"


def page(name: str, shelf: Shelf) -> str:
    """One method: what it is, commands, presets, settings, the paper's equations."""
    card = methods.card(name)
    named = flag if card.trainer else str
    lines = [f"# {card.title}", _sentence(card.summary), facts(card, shelf)]
    lines += ["## Commands", "\n".join(["```bash", *commands(card), "```"])]
    if card.trainer:
        lines.append(
            "[Settings of every run](run.md), such as `--loop.steps` and `--optim.lr`, go with each of them."
        )
    if card.presets:
        lines += ["## Presets", *_presets(card)]
    lines += ["## Settings", *settings.section(card.config, named)]
    module = (card.trainer or card.edit).partition(":")[0]
    lines += ["## Paper and departures", DOCSTRING.format(module=module).strip()]
    return "\n\n".join(lines) + "\n"


def facts(card: Card, shelf: Shelf) -> str:
    """Paper, what it offers, guides and evidence, a line each."""
    docs = tree.ROOT / "docs"
    told = {
        "Paper": _linked(card.paper),
        "For": ", ".join(card.offers),
        "Guide": _links(docs / name for name in re.findall(r"docs/(\w+\.md)", shelf.guides)),
        "Evidence": _links(sorted((docs / "evidence").glob(f"{card.name}*.md"))),
        "Code": f"`trainers/{card.name}/`",
    }
    return "\n".join(f"- **{key}**: {value}" for key, value in told.items() if value)


def _links(paths: Iterable[Path]) -> str:
    return "; ".join(f"[{_title(path)}](../{path.relative_to(tree.ROOT / 'docs')})" for path in paths)


def _sentence(text: str) -> str:
    return settings.escaped(f"{text[0].upper()}{text[1:].rstrip('.')}.")


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _linked(paper: str) -> str:
    """arXiv numbers as links."""
    return re.sub(r"(\d{4}\.\d{5})", r"[\1](https://arxiv.org/abs/\1)", paper)


def commands(card: Card) -> list[str]:
    """The commands of the README and the guides with this method; one that is made up if they have none."""
    name = card.name.replace("_", "[-_]")
    use = rf"studio train {name}(?![-\w])" if card.trainer else rf"studio sample .*\"{card.name}\""
    texts = [path.read_text(encoding="utf-8") for path in (tree.README, *GUIDES)]
    found = [line for text in texts for line in re.findall(rf"^ *({use}.*)$", text, flags=re.MULTILINE)]
    lines = [re.sub(r"\s+# ", "  # ", line) for line in dict.fromkeys(found)]
    return lines or [f"studio train {card.name} {' '.join(_needed(card))}".strip()]


def _needed(card: Card) -> Iterator[str]:
    for name in serial.hints(card.config):
        if settings.is_required(card.config, name):
            yield f"{flag(name)} {name.upper()}"


def _presets(card: Card) -> Iterator[str]:
    """For which models each preset is, from where, and their values side by side."""
    yield "\n".join(f"- **{name}**: {_told(name, preset)}" for name, preset in card.presets.items())
    columns = [_values(preset) for preset in card.presets.values()]
    names = dict.fromkeys(itertools.chain.from_iterable(columns))
    rows = [f"| `{name}` | {' | '.join(column.get(name, '') for column in columns)} |" for name in names]
    yield "\n".join([f"| setting | {' | '.join(card.presets)} |", "| --- " * (len(columns) + 1) + "|", *rows])


def _told(name: str, preset: Preset) -> str:
    taken = f"taken by itself for: {suited(preset)}" if preset.suits else f"taken by `--preset {name}`"
    return f"{taken}; {settings.escaped(preset.note)}." if preset.note else f"{taken}."


def _values(preset: Preset) -> dict[str, str]:
    """The values of a preset by flag."""
    flat = serial.flatten(serial.nest(dict(preset.values)))
    return {flag(path.removesuffix(".kind")): settings.shown(value) for path, value in flat.items()}

"""`docs/families.md`, from the cards and the cells of `tests/matrix.py`."""

from collections.abc import Iterator

from studio.catalog import families, methods
from studio.catalog.family import Variant

REFUSED = "refused: "
HEAD = """# Model families

Made by `python -m tests.matrix`: from the cards of the families, and by training. Names under *model* are what `--model` takes.

## Published models

Steps and guidance are what a model's own card draws with (guidance 1 is the conditional prediction alone). A gated model asks to accept
its license on the hub first. Distilled weights lose their few steps by plain finetuning: train the other model, or train under an
adapter with `--denoising.assistant`.

"""
TRIED = """
## Methods on families

Each method of the smallest settings trained two steps on each family's tiny random model, was stopped after one and went on with the
same bits (or as near as is said), exported, and its files were read back into a picture. A number is why it was refused.

"""


def render(cells: dict[str, dict[str, str]]) -> str:
    """The page."""
    return HEAD + "\n".join(published()) + "\n" + TRIED + "\n".join(_tried(cells)) + "\n"


def published() -> Iterator[str]:
    """The table of published models, a line a row."""
    yield from _head(
        "family", "model", "repository", "license", "gated", "size", "steps", "guidance", "to train"
    )
    for card, one in families.variants():
        link = f"[{one.hub}](https://huggingface.co/{one.hub})"
        names = ", ".join(f"`{name}`" for name in (one.name, *(n for n in one.also if "/" not in n)))
        drawn = (str(one.size), str(one.steps), f"{one.guidance:g}")
        yield _row(card.title, names, link, one.license, "yes" if one.gated else "", *drawn, _to_train(one))


def _to_train(variant: Variant) -> str:
    if not variant.distilled:
        return "itself"
    ways = [f"`{variant.instead}`"] if variant.instead else []
    ways += [f"itself under `{variant.assistant}`"] if variant.assistant else []
    return ", or ".join(ways)


def _tried(cells: dict[str, dict[str, str]]) -> Iterator[str]:
    names = list(families.cards())
    reasons: list[str] = []
    yield from _head("method", *names)
    for method, found in cells.items():
        yield _row(methods.card(method).title, *(_short(found.get(name, ""), reasons) for name in names))
    yield ""
    yield from (f"{number}. {reason}" for number, reason in enumerate(reasons, 1))


def _short(cell: str, reasons: list[str]) -> str:
    if not cell.startswith(REFUSED):
        return cell.removeprefix("exports ")
    reason = cell.removeprefix(REFUSED)
    if reason not in reasons:
        reasons.append(reason)
    return f"({reasons.index(reason) + 1})"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), _row(*("---" for _ in cells))]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"

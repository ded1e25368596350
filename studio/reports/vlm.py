"""The report of a dual encoder as HTML. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from studio.reports.robustness import head, line_table, section, table, write_html

_HINTS = {
    "Names": "Base and new are halves of the names, each asked among its own; HM is their harmonic mean.",
    "Retrieval": "The right caption for a picture, and a right picture for a caption, among the k best.",
    "Composition": "Two pictures and two captions that differ in one attribute; chance is 1/4, 1/4 and 1/6.",
}
_HEADER = ("", "before", "after", "change")
Measured = tuple[str, float | None, float, float | None]
"""A row of the table: measure, before, after, change; None where there is nothing to compare with."""


def write_page(
    facts: Mapping[str, str],
    rows: Sequence[Measured],
    line: Sequence[Mapping[str, float]],
    path: Path,
) -> None:
    """Write the report of an evaluation.

    Args:
        facts: What was measured on what.
        rows: Of the table.
        line: Accuracies along the line of weights.
        path: The file.
    """
    parts: dict[str, list[Measured]] = {"Names": [], "Retrieval": [], "Composition": []}
    for row in rows:
        kind = "Retrieval" if "R@" in row[0] else "Composition" if row[0].startswith("swapped") else "Names"
        parts[kind].append(row)
    body = head("Vision-language report", facts["model"], lead(rows), facts)
    for title, own in parts.items():
        if own:
            hint = f'<p class="hint">{_HINTS[title]}</p>'
            body += section(title, hint + table(_HEADER, [_told(row) for row in own]))
    write_html(facts["model"], body + line_table(line), path)


def lead(rows: Sequence[Measured]) -> str:
    """What changed most, in one sentence."""
    changes = {row[0]: row[3] for row in rows if row[3] is not None}
    if not changes:
        return "Measured alone: there is no model before it to compare with."
    told = [f"{name} {changes[name]:+.3f}" for name in ("base", "new", "HM", "accuracy") if name in changes]
    lost = min(changes, key=lambda name: changes[name] * (-1 if name == "ECE" else 1))
    return f"Against the untouched model: {', '.join(told)}. The largest loss is in {lost!r}."


def _told(row: Measured) -> list[str]:
    name, before, after, change = row
    told = ["", ""] if before is None or change is None else [f"{before:.3f}", f"{change:+.3f}"]
    return [name, told[0], f"{after:.3f}", told[1]]

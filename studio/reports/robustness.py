"""The robustness and nullspace reports as HTML: tables, corruption curves, pictures. No torch."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from studio import assets
from studio.records import runs

WIDTH, HEIGHT = 132, 56
_CSS = (
    ".curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(10rem,1fr));gap:1.1rem;margin-top:1.2rem}"
    ".curves figcaption{font-size:.8rem;color:var(--soft)}.curves b{color:var(--ink);font-weight:600}"
    ".curves svg{width:100%;display:block}"
    ".shown{display:grid;grid-template-columns:repeat(auto-fit,minmax(7rem,1fr));gap:.8rem;margin-top:.9rem}"
    ".shown figcaption{font-size:.8rem;color:var(--soft);margin-top:.25rem}.shown img{image-rendering:pixelated}"
    ".sign{border-left:3px solid var(--bad);padding-left:.8rem;margin-top:.8rem}"
    ".good{border-left:3px solid var(--accent);padding-left:.8rem;margin-top:.8rem}td.number{text-align:right}"
)
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """A picture that was told right, and what an attack made of it: file by kind."""

    files: Mapping[str, Path]
    label: str
    answer: str


def write_page(found: Values, examples: Sequence[Example], path: Path) -> None:
    """Write the report of a robustness evaluation."""
    body = "".join(
        (
            head("Robustness report", str(found["facts"]["model"]), _lead(found), found["facts"]),
            _trust(found["signs"], found["checks"]),
            _attacks(found["attacks"]),
            _corruptions(found["corruptions"], found["numbers"]["clean accuracy"]),
            line_table(found["line"]),
            _pairs("Other data", found["shifts"]),
            _fooled(examples),
            _pairs("All numbers", found["numbers"]),
        )
    )
    write_html(str(found["facts"]["model"]), body, path)


def write_html(title: str, body: str, path: Path) -> None:
    """One self-contained file in the look of all reports."""
    css = assets.path("css/report.css").read_text(encoding="utf-8") + _CSS
    path.parent.mkdir(parents=True, exist_ok=True)
    runs.write_text(
        path,
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{css}</style></head><body><main>{body}"
        "<footer>Written by Studio. This file needs no network.</footer></main></body></html>\n",
    )


def _lead(found: Values) -> str:
    numbers = found["numbers"]
    said = f"{numbers['clean accuracy']:.1%} of clean pictures are told right"
    if "mean corruption error percent" in numbers:
        said += f", {1 - numbers['mean corruption error percent'] / 100:.1%} under common corruptions"
    said += "".join(
        f", {value:.1%} under {name}" for name, value in numbers.items() if name.startswith("all attacks")
    )
    return said + f". Confidence is off by {numbers['ece']:.3f} (ECE)."


def head(eyebrow: str, title: str, lead: str, facts: Values) -> str:
    """The top of a report."""
    items = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items())
    return (
        f'<header><p class="eyebrow">{escape(eyebrow)}</p><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>'
        f'<dl class="facts">{items}</dl></header>'
    )


def _trust(signs: Sequence[str], checks: Mapping[str, float]) -> str:
    said = "".join(f'<p class="sign">{escape(sign)}</p>' for sign in signs)
    if not checks:
        said = '<p class="sign">Not looked at: signs of masked gradients were not asked for.</p>'
    good = f'<p class="good">No sign of masked gradients on {checks.get("n", 0):.0f} pictures.</p>'
    return section("Can the numbers be trusted?", said or good)


def _attacks(attacks: Mapping[str, Mapping[str, float]]) -> str:
    if not attacks:
        return ""
    radii = list(dict.fromkeys(radius for row in attacks.values() for radius in row))
    rows = [[name, *(f"{row[r]:.1%}" if r in row else "-" for r in radii)] for name, row in attacks.items()]
    return section("Attacks", table(["Accuracy under", *radii], rows))


def _corruptions(corruptions: Mapping[str, Sequence[float]], clean: float) -> str:
    if not corruptions:
        return ""
    figures = "".join(
        f"<figure><figcaption>{escape(name.replace('_', ' '))} <b>{values[-1]:.0%}</b></figcaption>"
        f"{_curve([clean, *values])}</figure>"
        for name, values in corruptions.items()
    )
    hint = '<p class="hint">Accuracy from the clean picture (left) to the highest severity; the number is the last.</p>'
    return section("Corruptions", f'{hint}<div class="curves">{figures}</div>')


def _curve(values: Sequence[float]) -> str:
    points = [
        (4 + (WIDTH - 8) * index / max(len(values) - 1, 1), 4 + (HEIGHT - 8) * (1 - value))
        for index, value in enumerate(values)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    told = ", ".join(f"{value:.0%}" for value in values)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">'
        f'<rect x="0" y="0" width="{WIDTH}" height="{HEIGHT}" fill="var(--well)" rx="4"/>'
        f'<polyline points="{path}" fill="none" stroke="var(--accent)" stroke-width="2"/></svg>'
    )


def line_table(points: Sequence[Mapping[str, float]]) -> str:
    """What was measured along a line of weights."""
    if not points:
        return ""
    names = list(points[0])
    rows = [[f"{p['alpha']:g}", *(f"{p[name]:.1%}" for name in names[1:])] for p in points]
    hint = '<p class="hint">Weights between the model before finetuning (0) and after it (1).</p>'
    return section("WiSE-FT", hint + table(names, rows))


def _fooled(examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    rows = "".join(
        shown({f"{kind}{_told(kind, e)}": file for kind, file in e.files.items()}) for e in examples
    )
    return section("What fools it", rows)


def _told(kind: str, example: Example) -> str:
    return {"clean": f": {example.label}", "attacked": f": {example.answer}"}.get(kind, " (stretched)")


def shown(pictures: Mapping[str, Path]) -> str:
    """A row of pictures with their captions."""
    figures = "".join(
        f'<figure><img src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}" alt="{escape(told)}">'
        f"<figcaption>{escape(told)}</figcaption></figure>"
        for told, file in pictures.items()
    )
    return f'<div class="shown">{figures}</div>'


def _pairs(title: str, values: Mapping[str, float]) -> str:
    rows = [[name, f"{value:.4g}"] for name, value in values.items()]
    return section(title, table(["", "Value"], rows)) if rows else ""


def section(title: str, body: str) -> str:
    """A part of a report."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the rows."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(c)}</td>" for c in rest)}</tr>'
        for first, *rest in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def write_nullspace_page(found: Values, pictures: Sequence[Mapping[str, Path]], path: Path) -> None:
    """Write the report of a nullspace analysis."""
    lead = (
        f"A patch has {found['inputs']} numbers, the embedding keeps {found['rank']} directions of them: "
        f"{found['nullity']} are invisible to the model."
    )
    rows = [
        [kind, *(f"{value:.2e}" for value in values.values())] for kind, values in found["changes"].items()
    ]
    moved = [[name, f"{value:.3f}"] for name, value in found["overlap"].items()]
    hint = '<p class="hint">Relative change of pixels, patch embeddings and logits (l2).</p>'
    body = head("Nullspace of the patch embedding", str(found["model"]), lead, {"seed": found["seed"]})
    body += section("What changes", hint + table(["Noise", "Pixels", "Embedding", "Logits"], rows))
    body += section("Pictures that the model cannot tell apart", "".join(shown(row) for row in pictures))
    if moved:
        told = table(["Overlap with", f"by chance {found['chance']:.3f}"], moved)
        line = _curve(list(found["overlap"].values())) if len(moved) > 1 else ""
        hint = '<p class="hint">1: the present nullspace, wholly; from the first line (left) to the last.</p>'
        body += section("How it moved while training", f"{hint}<figure>{line}</figure>{told}")
    write_html(str(found["model"]), body, path)

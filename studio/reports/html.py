"""The parts of a report as HTML. No torch."""

import base64
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from studio import assets
from studio.metrics.statistics import Estimate
from studio.metrics.table import Row, number
from studio.records import runs
from studio.reports.charts import Curve, chart, scale

EMBED_PIXELS = 512
"""Larger pictures are embedded at this size; the files beside the report keep theirs."""
TRAINED = "Trained"
"""Title of the column that is set off."""
Show = Callable[[Path], str]
"""Gives the address of a picture."""


@dataclass(frozen=True)
class Column:
    """Pictures of one kind: for each prompt a list of files."""

    title: str
    pictures: Sequence[Sequence[Path]]


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a report shows. Whatever is empty is left out."""

    title: str
    eyebrow: str = "Finetuning report"
    summary: str = ""
    facts: Sequence[tuple[str, str]] = ()
    references: Sequence[Path] = ()
    prompts: Sequence[str] = ()
    columns: Sequence[Column] = ()
    scores: Sequence[Row] = ()
    judges: str = ""
    curves: Sequence[Curve] = ()
    settings: Mapping[str, Any] | None = None
    command: str = ""


def write(page: Page, path: Path, *, embed: bool = True) -> Path:
    """Write a report: one self-contained file, or one that points at the pictures beside it."""

    def beside(picture: Path) -> str:
        return os.path.relpath(picture, path.parent)

    show = _embedded if embed else beside
    body = "".join(
        (_top(page), _strip(page, show), _grid(page, show), _scores(page), _curves(page), _how(page))
    )
    css = assets.path("css/report.css").read_text(encoding="utf-8")
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(page.title)}</title><style>{css}</style></head><body><main>{body}"
        "<footer>Written by Studio. This file needs no network.</footer></main></body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    runs.write_text(path, text)
    return path


def _embedded(picture: Path) -> str:
    """A picture as a data URI, made smaller if it is large."""
    with Image.open(picture) as image:
        if max(image.size) <= EMBED_PIXELS and image.format in ("PNG", "WEBP", "JPEG"):
            content, kind = Path(picture).read_bytes(), str(image.format).lower()
        else:
            small = image.convert("RGB")
            small.thumbnail((EMBED_PIXELS, EMBED_PIXELS), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            small.save(buffer, "WEBP", quality=88)
            content, kind = buffer.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _image(picture: Path, alt: str, show: Show) -> str:
    return f'<img src="{show(picture)}" alt="{escape(alt)}" loading="lazy">'


def _top(page: Page) -> str:
    items = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in page.facts)
    said = page.summary
    lead = f'<p class="lead">{escape(said)}</p>' if said else ""
    listed = f'<dl class="facts">{items}</dl>' if items else ""
    return f'<header><p class="eyebrow">{escape(page.eyebrow)}</p><h1>{escape(page.title)}</h1>{lead}{listed}</header>'


def _strip(page: Page, show: Show) -> str:
    if not page.references:
        return ""
    images = "".join(_image(p, f"reference {i + 1}", show) for i, p in enumerate(page.references))
    return f'<section><h2>The subject</h2><p class="hint">Pictures that likeness is measured against.</p><div class="strip">{images}</div></section>'


def _grid(page: Page, show: Show) -> str:
    if not page.columns:
        return ""
    heads = "".join(
        f'<div class="head{" trained" * (c.title == TRAINED)}">{escape(c.title)}</div>' for c in page.columns
    )
    rows = "".join(_grid_row(page, index, show) for index in range(len(page.prompts)))
    widths = " ".join(f"minmax(0, {2 if _most(c) == 2 else 1}fr)" for c in page.columns)
    return (
        '<section><h2>Before and after</h2><p class="hint">Each row is one prompt, drawn with the same seeds.</p>'
        f'<div class="grid" style="--widths:{widths}"><div class="head corner">Prompt</div>{heads}{rows}</div></section>'
    )


def _most(column: Column) -> int:
    return max((len(pictures) for pictures in column.pictures), default=0)


def _grid_row(page: Page, index: int, show: Show) -> str:
    prompt = page.prompts[index]
    cells = [f'<div class="rule"></div><div class="prompt">{escape(prompt)}</div>']
    for column in page.columns:
        pictures = column.pictures[index] if index < len(column.pictures) else []
        if not pictures:
            cells.append('<div class="none">-</div>')
            continue
        across = math.ceil(math.sqrt(len(pictures)))
        kind = "cell" + " trained" * (column.title == TRAINED) + " many" * (across > 1)
        images = "".join(_image(p, f"{column.title}: {prompt}", show) for p in pictures)
        cells.append(f'<div class="{kind}" style="--across:{across}">{images}</div>')
    return "".join(cells)


def _scores(page: Page) -> str:
    if not page.scores:
        return ""
    rows = "".join(_score_row(row) for row in page.scores)
    judges = f" Judged by {escape(page.judges)}." if page.judges else ""
    return (
        '<section><h2>Scores</h2><p class="hint">Means with their standard errors. A change is called better or worse '
        f"when it is larger than twice its standard error.{judges}</p>"
        '<div class="key"><span><i class="of-base"></i>base model</span><span><i class="of-trained"></i>trained</span>'
        '<span><i class="of-truth"></i>true pictures</span></div>'
        "<table><thead><tr><th>Score</th><th>From 0</th><th>Base</th><th>Trained</th><th>Change</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></section>"
    )


def _score_row(row: Row) -> str:
    meaning = row.meaning
    arrow = "↑ higher" if meaning.better == "higher" else "↓ lower"
    truth = f" True pictures score {row.ceiling:.{meaning.digits}f}." if row.ceiling is not None else ""
    change = number(row.change, meaning.digits, signed=True).replace("-", "\N{MINUS SIGN}")
    told = (
        {"better": "better", "worse": "worse", "even": "no clear change"}[row.verdict] if row.change else ""
    )
    return (
        f'<tr class="{row.verdict}"><th scope="row">{escape(meaning.label)}'
        f'<p>{escape(meaning.explanation + truth).replace("CLIP-", "CLIP&#8209;")} <span class="way">{arrow} is better.</span></p></th>'
        f'<td class="scale">{scale(row)}</td>{_number_cell("Base", "", row.base, meaning.digits)}'
        f"{_number_cell(TRAINED, ' trained', row.tuned, meaning.digits)}"
        + (
            f'<td data-label="Change"><span class="change">{change}</span><br><small>{told}</small></td></tr>'
            if row.change
            else '<td class="empty"></td></tr>'
        )
    )


def _number_cell(label: str, kind: str, estimate: Estimate | None, digits: int) -> str:
    if estimate is None:
        return '<td class="empty"></td>'
    error = f"<small>± {estimate.se:.{digits}f}</small>" if estimate.n > 1 else ""
    return f'<td class="number{kind}" data-label="{label}">{estimate.mean:.{digits}f}{error}</td>'


def _curves(page: Page) -> str:
    charts = "".join(chart(curve) for curve in page.curves)
    return f'<section><h2>Training</h2><div class="charts">{charts}</div></section>' if charts else ""


def _how(page: Page) -> str:
    command = f"<pre>{escape(page.command)}</pre>" if page.command else ""
    details = ""
    if page.settings:
        flat = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in _flat(page.settings))
        details = f'<details><summary>All settings</summary><dl class="settings">{flat}</dl></details>'
    if not command and not details:
        return ""
    return f'<section><h2>Make it again</h2><p class="hint">The same command gives the same weights.</p>{command}{details}</section>'


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        found += _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, json.dumps(value))]
    return found

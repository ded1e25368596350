"""Small pieces of page, as HTML. Every text that comes from outside is escaped here."""

import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from studio.errors import StudioError
from studio.queue.jobs import Job
from ui.workspace import Workspace

_WORDS = {"queued": "waiting", "running": "running", "done": "done", "stopped": "stopped", "failed": "failed",
          "canceled": "canceled", "new": "new", "interrupted": "interrupted"}  # fmt: skip


def badge(state: str) -> str:
    """A state as a colored word."""
    return f'<span class="badge {escape(state)}">{escape(_WORDS.get(state, state))}</span>'


def nothing(title: str, text: str) -> str:
    """What stands where nothing is yet: says what to do."""
    return f'<div class="nothing"><strong>{escape(title)}</strong><p>{escape(text)}</p></div>'


def note(text: str, kind: str = "info") -> str:
    """One sentence for the person; nothing for no sentence."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="note {kind}" role="{role}">{escape(text)}</p>' if text else ""


def refusal(error: StudioError) -> str:
    """A person's mistake: told here, and at its field by the page's own script (see `ui.theme.SCRIPT`)."""
    field = escape(error.field.removesuffix(".kind").replace(".", "-"), quote=True)
    return f'<p class="note error" role="alert" data-field="{field}" data-at="{time.time():.3f}">{escape(str(error))}</p>'


def section(title: str, inside: str) -> str:
    """A headed part of a page."""
    return f'<h3 class="part">{escape(title)}</h3>{inside}'


def progress(part: float, label: str) -> str:
    """A bar."""
    percent = round(100 * min(max(part, 0.0), 1.0))
    return (
        f'<div class="bar" role="progressbar" aria-valuenow="{percent}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-label="{escape(label)}"><i style="width:{percent}%"></i></div>'
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values side by side."""
    cells = "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>" for n, v in pairs if v)
    return f'<dl class="facts">{cells}</dl>' if cells else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls sideways where it must."""
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'


def picture(workspace: Workspace, path: str | Path, text: str = "", *, version: float = 0) -> str:
    """One picture with its caption; a click opens the file."""
    url = workspace.url(path) + (f"?v={version:.0f}" if version else "")
    return (
        f'<figure><a href="{url}" target="_blank" rel="noopener"><img src="{url}" alt="{escape(text, quote=True)}" '
        f'loading="lazy" decoding="async"></a><figcaption>{escape(text)}</figcaption></figure>'
    )


def gallery(workspace: Workspace, pictures: Iterable[tuple[str | Path, str]]) -> str:
    """Pictures side by side."""
    return f'<div class="gallery">{"".join(picture(workspace, path, text) for path, text in pictures)}</div>'


def link(workspace: Workspace, path: str | Path, text: str) -> str:
    """A file to open or save."""
    return f'<a class="file" href="{workspace.url(path)}" target="_blank" rel="noopener">{escape(text)}</a>'


def card(name: str, title: str, state: str, *, line: str = "", part: float = -1, chosen: bool = False) -> str:
    """Something to pick, with a mouse or a keyboard."""
    bar = progress(part, title) if part >= 0 else ""
    return (
        f'<button class="card{" chosen" if chosen else ""}" data-pick="{escape(name, quote=True)}" '
        f'aria-pressed="{str(chosen).lower()}"><span class="pair"><b>{escape(title)}</b>{badge(state)}</span>'
        f'<span class="line">{escape(line)}</span>{bar}</button>'
    )


def job(workspace: Workspace, found: Job, place: int = 0, *, running: int = 0) -> str:
    """How far a job is, in one block, with what can be done about it; `place` of those that wait are before it."""
    wait = f"{place + running} before it" if place + running else "starts next"
    told = {
        "queued": f"Waiting: {wait} on {found.device}.",
        "running": "Stopping after this step."
        if found.wanted
        else f"Running on {found.device}, {since(found.begun)}.",
        "stopped": "Stopped; what was done is kept.",
        "failed": found.error,
        "canceled": "Canceled before it started.",
        "done": f"Done in {duration(found.ended - found.begun)}.",
    }[found.state]
    bar = progress(found.progress, found.title) if found.state == "running" else ""
    shown = workspace.jobs.root / str(found.id) / "preview.webp"
    preview = ""
    if found.state == "running" and shown.exists():
        preview = f'<div class="drawing">{picture(workspace, shown, version=shown.stat().st_mtime)}</div>'
    kind = "error" if found.state == "failed" else "info"
    top = f'<span class="pair"><b>{escape(found.title)}</b>{badge(found.state)}</span>'
    return f'<div class="job">{top}{bar}{note(told, kind)}{preview}{_verbs(found, place)}</div>'


def _verbs(found: Job, place: int) -> str:
    verbs = {
        "earlier": "Earlier" if found.state == "queued" and place else "",
        "stop": "" if found.wanted else {"queued": "Cancel", "running": "Stop"}.get(found.state, ""),
    }
    named = escape(found.title, quote=True)
    buttons = "".join(
        f'<button class="verb" data-pick="{verb} {found.id}" aria-label="{word}: {named}">{word}</button>'
        for verb, word in verbs.items()
        if word
    )
    return f'<div class="verbs">{buttons}</div>' if buttons else ""


def since(moment: float) -> str:
    """For how long something goes on."""
    return f"for {duration(time.time() - moment)}"


def duration(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(path: Path) -> str:
    """How much room a file or folder takes."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    total = sum(each.stat().st_size for each in files)
    unit, name = next(((u, n) for u, n in ((1e9, "GB"), (1e6, "MB")) if total >= u), (1e3, "kB"))
    return f"{total / unit:.1f} {name}"

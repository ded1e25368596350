"""Pictures that were drawn, with their recipes: side by side, as a grid, and those drawn before."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from studio.records import recipes
from ui import parts
from ui.workspace import Workspace


def gallery(workspace: Workspace, paths: Sequence[str]) -> str:
    """Pictures side by side, each with its prompt and seed."""
    return parts.gallery(workspace, [(path, _told(path)) for path in paths])


def earlier(workspace: Workspace) -> str:
    """The newest pictures of the workspace; nothing, if there are none."""
    files = sorted(workspace.samples.glob("*.png"), key=lambda path: path.stat().st_mtime, reverse=True)[:12]
    if not files:
        return ""
    return '<h3 class="part">Drawn before</h3>' + gallery(workspace, [str(path) for path in files])


def sheet(workspace: Workspace, result: Mapping[str, Any]) -> str:
    """A compare grid, its values at the sides, and a link to all of it as one picture."""
    x, y = result["x"], result["y"]
    head = "".join(f"<th>{escape(x['name'])} {escape(Path(v).name)}</th>" for v in x["values"])
    rows = [
        f"<tr><th>{escape(y['name'])} {escape(Path(v).name)}</th>"
        + "".join(f"<td>{_cell(workspace.url(path))}</td>" for path in cells)
        + "</tr>"
        for v, cells in zip(y["values"], result["cells"], strict=True)
    ]
    save = parts.link(workspace, result["sheet"], "Open the grid as one picture")
    return (
        f'<div class="scroll"><table class="grid"><tr><th></th>{head}</tr>{"".join(rows)}</table></div>{save}'
    )


def _told(path: str) -> str:
    """A picture's recipe in a line."""
    request = recipes.read(Path(path))
    edited = (
        f" · {', '.join(json.loads(edit)['kind'] for edit in request.edits if edit.startswith('{'))}"
        if request.edits
        else ""
    )
    return f"{request.prompt[0]} · seed {request.seed}{edited}"


def _cell(url: str) -> str:
    return f'<a href="{url}" target="_blank" rel="noopener"><img src="{url}" alt="" loading="lazy"></a>'

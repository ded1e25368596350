"""The hook of mkdocs: adds what lies outside of docs/ and what is generated, and makes links between them work."""

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tests import tree
from tests.manual import api, methods, settings

OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
           "LICENSE": "LICENSE.txt", "NOTICE": "NOTICE.txt"}  # fmt: skip
"""Files of the project that are pages of the manual, and where."""
BOOST = {"methods": 4, "api": 0.2, "changelog.md": 0.2, "tree.md": 0.2}
"""Who searches for a setting wants the method that has it first, and the code last."""
LINK = re.compile(r"(\]\(|src=\")([^)#:\"]+)")


def outside() -> dict[str, str]:
    """Where each file outside of docs/ is in the manual: the project's own, and the models' cards with their pictures."""
    cards = (p for ext in ("md", "png") for p in (tree.ROOT / "assets" / "models").glob(f"*/*.{ext}"))
    return OUTSIDE | {
        name: f"models/{name.removeprefix('assets/models/')}" for name in map(_name, sorted(cards))
    }


def _name(path: Path) -> str:
    return path.relative_to(tree.ROOT).as_posix()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put methods and rooms where the navigation has their names alone."""
    parts = {"methods": methods.nav(), "api": api.nav()}
    config.nav = [
        {title: parts.get(str(inside), inside) for title, inside in item.items()} for item in config.nav or []
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is not in docs/."""
    for name, uri in outside().items():
        files.append(File.generated(config, uri, abs_src_path=str(tree.ROOT / name)))
    for uri, text in (methods.pages() | api.pages()).items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are in the project to links as they are in the manual; methods and rooms get links to their pages."""
    uri = page.file.src_uri
    page.meta["search"] = {"boost": BOOST.get(uri.partition("/")[0], 1)}
    if uri.startswith(("methods/", "api/")):
        return markdown
    if uri == "index.md":
        page.meta["hide"] = ["navigation"]
    return listed(relinked(methods.ROW.sub(_row, markdown), uri))


def _row(row: re.Match[str]) -> str:
    names = re.sub(r"`(\w+)`", r"[`\1`](docs/methods/\1.md)", row[2])
    return f"| {row[1]} | {names} | {row[3]} | {row[4]} |"


def listed(markdown: str) -> str:
    """A tree as a table, whose lines wrap."""
    before, begin, rest = markdown.partition(tree.BEGIN)
    lines, _, after = rest.partition(tree.END)
    if not begin:
        return markdown
    pages = {f"  {room}/": f"api/{room}.md" for room in api.rooms()}
    pages |= {f"  {name}/": f"methods/{name}.md" for shelf in methods.shelves() for name in shelf.names}
    rows = (_branch(*re.split(r"(?<=\S) +", line, maxsplit=1), pages) for line in lines.splitlines())
    return "\n".join([f"{before}| where | what |", "| --- | --- |", *rows]) + after


def _branch(name: str, what: str, pages: Mapping[str, str]) -> str:
    shown = f"`{name.strip()}`" if name not in pages else f"[`{name.strip()}`]({pages[name]})"
    return f"| {'&nbsp;' * 3 * name.count('  ')}{shown} | {settings.escaped(what)} |"


def relinked(markdown: str, uri: str) -> str:
    """The text of a page with its links turned from the project's folders to the manual's."""
    there = outside()
    source = next((name for name, to in there.items() if to == uri), f"docs/{uri}")

    def turned(match: re.Match[str]) -> str:
        name = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        target = there.get(name, name.removeprefix("docs/"))
        return match[1] + posixpath.relpath(target, posixpath.dirname(uri) or ".")

    return LINK.sub(turned, markdown)

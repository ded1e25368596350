"""The tree by rooms in the README and in docs/architecture.md, by files in docs/tree.md: `python -m tests.tree` writes all."""

import ast
import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BY_FILES, BY_ROOMS = ROOT / "docs" / "tree.md", (README, ROOT / "docs" / "architecture.md")
PACKAGES = ("studio", "trainers", "ui")
BESIDE = {
    "assets": "Embedded models, sample pictures, stickers that scenes are made of, stylesheets.",
    "docs": "The manual: guides, tables of evidence, pictures of the app, the tree by files.",
}
"""Folders without code, and what they hold."""
BEGIN, END = "<!-- tree: made by `make tree` -->\n```text\n", "```\n<!-- end of tree -->"


def modules() -> list[Path]:
    """All Python files of the three packages, relative to the root."""
    return sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def summary(path: Path) -> str:
    """First sentence of a module's docstring."""
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    if not docstring:
        message = f"{path} has no docstring"
        raise ValueError(message)
    return docstring.split("\n\n")[0].replace("\n", " ").strip()


def lines(folder: Path, depth: int = 0) -> Iterator[str]:
    """One line for a folder and one for each file under it; folders after files."""
    yield _line(f"{folder.name}/", summary(folder / "__init__.py"), depth)
    inside = sorted((ROOT / folder).iterdir())
    for path in inside:
        if path.suffix == ".py" and path.name != "__init__.py":
            yield _line(path.name, summary(path.relative_to(ROOT)), depth + 1)
    for path in inside:
        if path.is_dir() and any(path.rglob("*.py")):
            yield from lines(path.relative_to(ROOT), depth + 1)


def _line(name: str, what: str, depth: int) -> str:
    return f"{'  ' * depth + name:<28}{what}"


def rooms() -> Iterator[str]:
    """One line a loose file and a room of studio, and one for each folder beside it."""
    yield from (line for line in lines(Path("studio")) if not line.startswith(" " * 4))
    yield from (
        _line(f"{name}/", summary(Path(name, "__init__.py")), 0) for name in ("trainers", "ui", "tests")
    )
    yield from (_line(f"{name}/", what, 0) for name, what in BESIDE.items())


def render(found: Iterable[str]) -> str:
    """A tree between its markers."""
    return BEGIN + "".join(f"{line}\n" for line in found) + END


@functools.cache
def trees() -> dict[Path, str]:
    """The tree that each file should hold."""
    files = itertools.chain.from_iterable(lines(Path(package)) for package in PACKAGES)
    return {BY_FILES: render(files)} | dict.fromkeys(BY_ROOMS, render(rooms()))


def held(path: Path) -> str:
    """The tree that a file holds, markers included."""
    text = path.read_text(encoding="utf-8")
    return text[text.index(BEGIN) : text.index(END) + len(END)]


if __name__ == "__main__":
    for file, tree in trees().items():
        file.write_text(file.read_text(encoding="utf-8").replace(held(file), tree), encoding="utf-8")

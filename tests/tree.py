"""The tree in the README, one line a file, made from the modules' docstrings: `python -m tests.tree` writes it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PACKAGES = ("studio", "trainers", "ui")
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


def render() -> str:
    """The tree between its markers."""
    return BEGIN + "".join(f"{line}\n" for package in PACKAGES for line in lines(Path(package))) + END


def in_readme() -> str:
    """The tree as the README has it, markers included."""
    text = README.read_text(encoding="utf-8")
    return text[text.index(BEGIN) : text.index(END) + len(END)]


if __name__ == "__main__":
    README.write_text(README.read_text(encoding="utf-8").replace(in_readme(), render()), encoding="utf-8")

"""A page a room of studio, from the docstrings of its modules."""

from collections.abc import Iterator
from pathlib import Path

from tests import tree

STUDIO = tree.ROOT / "studio"
ROOM = """
::: {module}
    options:
      members: false
      show_root_heading: false
      show_root_toc_entry: false
"""


def rooms() -> list[str]:
    """Folders of studio that hold code."""
    return sorted(path.parent.name for path in STUDIO.glob("*/__init__.py"))


def pages() -> dict[str, str]:
    """Where each page is, and its text."""
    inside = {name: tree_modules(STUDIO / name) for name in rooms()}
    loose = sorted(path for path in STUDIO.glob("*.py") if path.name != "__init__.py")
    found = {f"api/{name}.md": page(f"studio.{name}", modules) for name, modules in inside.items()}
    return found | {"api/index.md": index(), "api/studio.md": page("studio", loose)}


def nav() -> list[object]:
    """The part of the navigation that is the API."""
    return ["api/index.md", {"studio": "api/studio.md"}, *({name: f"api/{name}.md"} for name in rooms())]


def tree_modules(folder: Path) -> list[Path]:
    """Python files of a room, those of folders in it too; settings first, for they say what there is."""
    found = (path for path in folder.rglob("*.py") if path != folder / "__init__.py")
    return sorted(found, key=lambda path: (path.parent, path.stem != "config", path.stem))


def page(package: str, modules: list[Path]) -> str:
    """A room: what it is for, and each of its modules."""
    parts = (f"::: {module}\n" for module in map(dotted, modules))
    return f"# {package}\n{ROOM.format(module=package)}\n" + "\n".join(parts)


def dotted(path: Path) -> str:
    """The name that a file is imported by."""
    return ".".join(path.relative_to(tree.ROOT).with_suffix("").parts).removesuffix(".__init__")


def index() -> str:
    """The rooms, one line each."""
    return "\n".join(
        [
            "# API",
            "",
            "From the docstrings, a page a room.",
            "",
            "| room | what it is |",
            "| --- | --- |",
            *_rows(),
        ]
    )


def _rows() -> Iterator[str]:
    yield "| [studio](studio.md) | The files beside the rooms. |"
    for name in rooms():
        yield f"| [{name}]({name}.md) | {tree.summary(Path('studio', name, '__init__.py'))} |"

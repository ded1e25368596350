"""`studio new method NAME [--outside]`: the files of a method that runs, to be changed into your own.

The files of `blueprint/` are a method like any other, checked with the code around them; here its name is put in place of
theirs, and imports are sorted anew. No torch.
"""

import importlib.util
import keyword
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from studio.catalog import methods
from studio.console import Console
from studio.errors import StudioError, unknown

BLUEPRINT = Path(__file__).parent / "blueprint"
LONGEST = 30
"""Letters of a name: longer ones would break lines of the files elsewhere than here."""
OURS = ("studio", "tests", "trainers", "ui")
"""Packages of a checkout, whose imports stand apart from those of libraries."""
_IMPORTS = re.compile(r"^from .+ import .+\n(?:\n?from .+ import .+\n)*", re.MULTILINE)


def method(argv: list[str], console: Console) -> None:
    """The command: write the files, say what to type next."""
    names = [each for each in argv if not each.startswith("-")]
    if wrong := [each for each in argv if each.startswith("-") and each != "--outside"]:
        raise unknown("flag", wrong[0], ["--outside"])
    if len(names) != 1:
        raise StudioError("studio new method needs one name, such as my_method.", field="name")
    name, outside = names[0].replace("-", "_"), "--outside" in argv
    if not outside and not _is_checkout(Path.cwd()):
        raise StudioError(
            f"{Path.cwd()} is no checkout of Studio, which has trainers/ and tests/trainers/; add --outside to write ./{name}, a "
            "package of your own.",
            field="outside",
        )
    written = write(name, Path.cwd(), outside=outside)
    console.record({"event": "written", "files": [str(file) for file in written]})
    for line in [*map(str, written), "", *_next(name, outside)]:
        console.print(line)


def write(name: str, root: Path, *, outside: bool) -> list[Path]:
    """The files of a new method, relative to where they are written.

    Args:
        name: Of the method, its package and its settings.
        root: A checkout, or where the package shall be.
        outside: One package with all in it, rather than a folder of trainers/ and tests beside the others.

    Raises:
        StudioError: The name cannot be one, or is taken.
    """
    _refuse(name, root, outside)
    places = _outside(name) if outside else _inside(name)
    if taken := [place for place in places.values() if (root / place).exists()]:
        raise StudioError(
            f"{taken[0]} exists already; nothing was written. Choose another name.", field="name"
        )
    package = name if outside else f"trainers.{name}"
    texts = {
        place: renamed((BLUEPRINT / file).read_text(encoding="utf-8"), name, package)
        for file, place in places.items()
    }
    (root / next(iter(places.values()))).parent.mkdir()
    for place, text in texts.items():
        (root / place).write_text(text, encoding="utf-8")
    return list(texts)


def renamed(text: str, name: str, package: str) -> str:
    """A file of the blueprint as one of another method."""
    title = "".join(part.capitalize() for part in name.split("_"))
    moved = text.replace("studio.commands.blueprint", package)
    moved = re.sub(r"(?<![a-z])blueprint", name, moved).replace("Blueprint", title)
    ours = OURS if package != name else (name,)
    return _IMPORTS.sub(lambda found: _sorted(found[0], ours), moved)


def _sorted(imports: str, ours: Sequence[str]) -> str:
    """Lines `from x import y`: of the standard library, of other packages, of ours; each by name."""
    lines = sorted((line for line in imports.splitlines() if line), key=lambda line: line.split()[1])
    shelves: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for line in lines:
        top = line.split()[1].partition(".")[0]
        shelves[0 if top in sys.stdlib_module_names else 2 if top in ours else 1].append(line)
    return "\n\n".join("\n".join(shelf) for shelf in shelves.values() if shelf) + "\n"


def _inside(name: str) -> dict[str, Path]:
    """Where each file of the blueprint goes in a checkout."""
    folder, tests = Path("trainers", name), Path("tests", "trainers")
    return {
        **{file: folder / file for file in ("__init__.py", "config.py", "trainer.py")},
        "case.py": tests / f"case_{name}.py",
        "test_facts.py": tests / f"test_{name}.py",
    }


def _outside(name: str) -> dict[str, Path]:
    """Where each file of the blueprint goes in a package of one's own."""
    files = ("__init__.py", "config.py", "trainer.py", "case.py", "test_facts.py")
    return {**{file: Path(name, file) for file in files}, "test_blueprint.py": Path(name, f"test_{name}.py")}


def _refuse(name: str, root: Path, outside: bool) -> None:
    """Refuse a name that no package can have, or that another one has."""
    if (
        not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)
        or keyword.iskeyword(name)
        or len(name) > LONGEST
    ):
        raise StudioError(
            f"{name!r} cannot be the name of a method; use up to {LONGEST} small letters, digits and underscores, such as my_method.",
            field="name",
        )
    if name in methods.names() or (root / (name if outside else f"trainers/{name}")).exists():
        raise StudioError(
            f"There is a method or a folder {name!r} already; nothing was written. Choose another name.",
            field="name",
        )
    if outside and importlib.util.find_spec(name) is not None:
        raise StudioError(
            f"Python finds a module {name!r} already, which would be imported instead; choose another name.",
            field="name",
        )


def _is_checkout(folder: Path) -> bool:
    """Whether a folder is the checkout that runs."""
    return (folder / "tests" / "trainers").is_dir() and folder / "trainers" in methods.places()


def _next(name: str, outside: bool) -> Iterator[str]:
    """What to type next."""
    yield "It runs as it is; change it into your method. Next:"
    yield f"  studio train {name} --help"
    yield f"  studio train {name} --data DIR"
    if outside:
        yield f"  pytest {name}"
        return
    yield f"  pytest tests/trainers/test_{name}.py tests/test_contract.py -k {name}"
    yield f"  make tree flags   # after a row for {name} in the README's table of methods"

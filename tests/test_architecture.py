"""The promises of the architecture: size, layers, no torch in settings, the tree and the graph of imports as told, the flags."""

import ast
import importlib.metadata
import itertools
import json
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import flags, rooms, tree

ROOT = tree.ROOT
FILE_LINES, FUNCTION_LINES, NESTING, README_LINES = 300, 40, 3, 250
HEAVY = ("torch", "diffusers", "transformers", "timm")
COMMANDS = {
    "help": ["--help"],
    "help of a method": ["train", "dreambooth", "--help"],
    "misspelled flag": ["train", "dreambooth", "--loop.stepz", "5"],
    "bad value": ["train", "dreambooth", "--loop.steps", "minus one"],
}
REPORT_HEAVY = f"""
import json, sys
try:
    {{code}}
except SystemExit:
    pass
finally:
    print(json.dumps([name for name in {HEAVY} if name in sys.modules]), file=sys.stderr)
"""


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{path}:{node.lineno} {node.name}", node


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring and decorators."""
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    has_docstring = ast.get_docstring(node) is not None
    return total - ((first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def heavy_imports(code: str, *arguments: str) -> list[str]:
    result = python(REPORT_HEAVY.format(code=code), *arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stderr.splitlines()[-1])


def test_the_top_floor_stays_small():
    loose = sorted(path.name for path in (ROOT / "studio").glob("*.py"))
    assert len(loose) <= 10, loose
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250


def test_no_file_is_longer_than_its_budget():
    counts = {
        str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in tree.modules()
    }
    assert {path: count for path, count in counts.items() if count > FILE_LINES} == {}


def test_no_function_is_longer_than_its_budget():
    long = {name: body_lines(node) for path in tree.modules() for name, node in functions(path)}
    assert {name: count for name, count in long.items() if count > FUNCTION_LINES} == {}


def test_no_function_nests_deeper_than_its_budget():
    deep = {name: depth(node) for path in tree.modules() for name, node in functions(path)}
    assert {name: count for name, count in deep.items() if count > NESTING} == {}


def depth(node: ast.AST) -> int:
    """Levels of branches, loops and `try`; a nested function starts anew, `with`, `elif` and cases add none."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        is_block = isinstance(child, (ast.If, ast.For, ast.While, ast.Match, ast.Try))
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and child in node.orelse
        deepest = max(deepest, depth(child) + (1 if is_block and not is_elif else 0))
    return deepest


def test_imports_keep_the_four_layer_contracts():
    # In a process of its own: the import graph's builder reads settings once per process.
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    result = python(code)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", tree.trees(), ids=lambda path: path.name)
def test_the_tree_is_told_as_it_is(path: Path):
    assert tree.held(path) == tree.trees()[path], "run `make tree`"


def test_the_graph_of_imports_is_told_as_it_is():
    told = {path: path.read_text(encoding="utf-8") for path in rooms.PICTURES.glob("rooms.*")}
    assert told == rooms.made(ROOT, "rooms"), "run `make tree`"


def test_the_readme_is_read_in_minutes():
    assert len(tree.README.read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_the_list_of_flags_changes_only_on_purpose():
    assert flags.FILE.read_text(encoding="utf-8") == flags.render(), (
        "run `make flags`, and say it in the changelog"
    )


def test_settings_import_no_torch():
    names = [".".join(path.with_suffix("").parts) for path in tree.modules() if path.name == "config.py"]
    rooms = ("settings", "catalog", "flags", "records", "queue")
    names += [".".join(path.with_suffix("").parts) for path in tree.modules() if path.parts[1] in rooms]
    names += ["studio.errors", "studio.assets"]
    present = [name for name in names if (ROOT / (name.replace(".", "/") + ".py")).exists()]
    assert heavy_imports(f"import {', '.join(present)}") == []


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS.keys())
def test_the_command_answers_without_torch(arguments: list[str]):
    code = "import studio.cli; sys.argv[0] = 'studio'; studio.cli.main()"
    assert heavy_imports(code, *arguments) == []


@pytest.mark.timing
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS.keys())
def test_the_command_answers_in_under_a_second(arguments: list[str]):
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        python("import sys, studio.cli; sys.argv[0] = 'studio'; studio.cli.main()", *arguments)
        seconds.append(time.perf_counter() - start)
    print(f"{statistics.median(seconds):.2f} s  studio {' '.join(arguments)}")
    assert statistics.median(seconds) < 1


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - set(tree.PACKAGES)


def test_every_imported_library_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    listed = [*project["dependencies"], *extras]
    declared = {line.partition(">=")[0].replace("_", "-").lower() for line in listed}
    # Where the distribution of an optional extra is not installed, its module's name cannot be looked up.
    provided = {"skimage": ["scikit-image"], **importlib.metadata.packages_distributions()}
    missing = {
        (str(path), name)
        for path in tree.modules()
        for name in imported(path)
        if not {d.replace("_", "-").lower() for d in provided.get(name, [name])} & declared
    }
    assert missing == set()

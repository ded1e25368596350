"""The map of moved modules in the changelog is true: every new place exists, and holds what it says."""

import importlib
import re
from pathlib import Path

import pytest

CHANGELOG = (Path(__file__).resolve().parent.parent / "CHANGELOG.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([\w.]+)`(.*?) \| `([\w.]+)` \|$", CHANGELOG, flags=re.MULTILINE)


@pytest.mark.parametrize(("before", "names", "now"), ROWS, ids=[f"{row[0]} to {row[2]}" for row in ROWS])
def test_what_moved_is_where_the_map_says(before: str, names: str, now: str):
    module = importlib.import_module(now)
    listed = re.findall(r"\w+", names) if names.startswith(", `") else []
    assert [name for name in listed if not hasattr(module, name)] == []
    assert before != now


def test_the_map_is_there():
    assert len(ROWS) > 50

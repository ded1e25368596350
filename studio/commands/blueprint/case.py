"""The smallest sensible settings of Blueprint, for the tests that every method passes."""

from pathlib import Path

from studio.commands.blueprint.config import Blueprint
from studio.testing import photos


def case(folder: Path) -> Blueprint:
    """Settings over an empty folder."""
    return Blueprint(data=photos(folder), model="tiny:sd1")

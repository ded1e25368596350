"""Tests mirror the tree: one file a module, and the contract that every method keeps."""

from tests import checks as checks  # pytest's type-checking hook looks it up as `tests.checks.check`

"""What every method must do (`studio.testing`), over our own. A new method is tested by existing: it needs a case."""

from pathlib import Path

import pytest

from studio.catalog import methods
from studio.catalog.run import Run
from studio.testing import Contract, small
from tests.cases import CASES

METHODS = [name for name in methods.ours() if methods.card(name).trainer]


def test_every_method_has_a_case():
    assert set(CASES) == set(METHODS)


class TestContract(Contract):
    @pytest.fixture(params=METHODS)
    def run(self, request: pytest.FixtureRequest, tmp_path: Path) -> Run:
        return small(CASES[request.param](tmp_path / "data"), tmp_path / "runs")

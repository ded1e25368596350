"""What every edit of sampling must do (`studio.testing`), over our own. A new one needs a case in `cases.py`."""

from pathlib import Path

import pytest

from studio.catalog import methods
from studio.testing import EditContract, in_request
from tests.cases import EDITS

METHODS = [name for name in methods.ours() if methods.card(name).edit]


def test_every_edit_has_a_case():
    assert set(EDITS) == set(METHODS)


class TestEditContract(EditContract):
    @pytest.fixture(params=METHODS)
    def written(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return in_request(request.param, EDITS[request.param](tmp_path / "data"))

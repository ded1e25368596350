"""What every edit of sampling must do, whatever it is. A new one is tested by existing: it needs a case in `cases.py`."""

import json

import pytest

from studio.backend.core import Backend
from studio.catalog import methods
from studio.contracts.sampling import Edit, Request
from studio.models.build import load
from studio.models.draw import draw
from studio.sampling import infer
from studio.settings import serial
from studio.settings.run import Hardware
from tests.cases import EDITS

METHODS = [name for name in methods.ours() if methods.card(name).edit]


@pytest.fixture(scope="module")
def family():
    return load("tiny:sd1", Backend(Hardware(device="cpu", precision="fp32")))


def written(name, folder):
    """The settings as a request holds them."""
    return json.dumps({"kind": name, **serial.to_dict(EDITS[name](folder))})


def picture(family, *edits):
    request = Request(prompts=["a dog on grass"], steps=2, guidance=1.0, seed=3, edits=edits)
    return draw(family, request)[0].tobytes()


def test_every_edit_has_a_case():
    assert set(EDITS) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_an_edit_comes_from_its_settings_changes_the_picture_and_repeats(name, family, tmp_path):
    text = written(name, tmp_path / "data")
    first, second = infer.load_edit(text, family), infer.load_edit(text, family)
    assert isinstance(first, Edit)
    plain, once = picture(family), picture(family, first)
    assert once != plain
    assert picture(family, first) == once
    assert picture(family, second) == once


@pytest.mark.parametrize("name", METHODS)
def test_an_edit_leaves_no_trace_in_the_model(name, family, tmp_path):
    plain = picture(family)
    picture(family, infer.load_edit(written(name, tmp_path / "data"), family))
    assert picture(family) == plain

"""The cheapest cells of `python -m tests.simulated`, in which each way occurs; and that its page is that of its cells."""

import pytest

from studio.catalog import families, methods
from tests.cases import CASES
from tests.simulated import OWN, PAGE, found, read, render
from tests.simulated_cell import Counted, tried

CELLS = [
    ("dreambooth", "sd1", "offload"),
    ("dreambooth", "sd1", "cache"),
    ("dreambooth", "sd3", "whole"),
    ("dreambooth", "qwen-image", "adapter"),
    ("textual_inversion", "sd1", "offload"),
    ("draft", "sd1", "offload"),
    ("diffusion_dpo", "sd1", "text"),
    ("flow_grpo", "flux", "offload"),
    ("oft", "sd1", "adapter"),
    ("vit", OWN, "adapter"),
]
"""Few enough for a minute; the others are for the command."""


@pytest.mark.parametrize(("method", "family", "way"), CELLS)
def test_a_run_holds_what_it_should_where_it_should(method, family, way):
    counted = tried(method, "" if family == OWN else family, way)
    assert isinstance(counted, Counted)
    assert counted.in_loss == 0
    assert counted.reads <= 1  # that loss and gradient are finite


def test_a_refusal_is_one_sentence():
    assert "CLIP text encoder" in found("textual_inversion", "z-image", "offload")


def test_the_page_is_made_of_the_cells():
    assert PAGE.read_text(encoding="utf-8") == render(read())


def test_no_cell_is_a_fault_and_every_method_was_tried():
    cells = read()
    assert set(cells) == {name for name in CASES if name in methods.ours()}
    assert {family for by_family in cells.values() for family in by_family} <= {*families.cards(), OWN}
    said = [said for by_family in cells.values() for by_way in by_family.values() for said in by_way.values()]
    assert not [each for each in said if each.startswith("FAULT")]

"""The page of the families is that of the cards, and what it says is refused is refused."""

import pytest

from studio.catalog import families
from tests.families_page import REFUSED, published, render
from tests.matrix import PAGE, cell, read
from tests.on_families import drawing_methods

CELLS = read()
REFUSALS = [(m, f) for m, found in CELLS.items() for f, said in found.items() if said.startswith(REFUSED)]


def test_the_published_models_are_those_of_the_cards():
    assert "\n".join(published()) in PAGE.read_text()


def test_the_page_is_made_of_the_cells():
    assert PAGE.read_text() == render(CELLS)


def test_every_cell_that_was_tried_came_to_a_result():
    assert set(CELLS) == set(drawing_methods())
    assert {family for found in CELLS.values() for family in found} <= set(families.cards())
    assert not [said for found in CELLS.values() for said in found.values() if said.startswith("FAULT")]


@pytest.mark.parametrize(("method", "family"), REFUSALS)
def test_what_does_not_apply_is_refused_in_these_words(method, family):
    assert cell(method, family) == CELLS[method][family]

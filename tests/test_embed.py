"""A run as an embedded artifact: its weights, its settings without where it lay, and a card with its scores."""

import json
from pathlib import Path

import pytest

from studio.catalog.run import Run
from studio.settings.run import Loop
from studio.training import embed
from studio.training.train import run_to_end
from tests.toy.config import Toy


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """A folder with an embedded artifact, made of a finished run."""
    place = tmp_path_factory.mktemp("runs")
    folder = run_to_end(Run(method=Toy(), output=str(place), name="toy", loop=Loop(steps=2, batch_size=3)))
    return embed.artifact(str(folder.path), "toy-tiny", place / "shelf")


def test_the_card_says_what_it_is_how_it_was_made_and_how_well_it_does(shelf: Path):
    text = (shelf / "README.md").read_text()
    assert text.startswith("# toy-tiny: Toy on line\n")
    assert "| steps | 2 of 3 |" in text
    assert "`python -m studio.training.embed RUN toy-tiny`" in text
    assert "| quality | -" in text
    assert "HELD_OUT" in text


def test_its_settings_do_not_tell_where_the_run_lay(shelf: Path):
    values = json.loads((shelf / "run.json").read_text())
    assert values["output"] == "runs"
    assert str(shelf.parent) not in (shelf / "run.json").read_text()


def test_nor_where_the_weights_lay_that_it_went_on_from():
    kept = {"kind": "jedi", "model": "studio-tiny"}
    found = embed.portable(
        {"method": {**kept, "start": "/home/me/runs/before"}, "seed": 1, "output": "/home/me"}
    )
    assert found == {"method": {**kept, "start": ""}, "seed": 1, "output": "runs", "hardware": {}}


def test_a_note_says_how_the_run_was_led(shelf: Path):
    run = str(shelf.parents[1] / "toy")
    card = embed.artifact(run, "noted", shelf.parent, "In two sittings.") / "README.md"
    assert "\n\nIn two sittings.\n\n" in card.read_text()


def test_its_weights_are_what_the_method_exports(shelf: Path):
    exported = shelf.parents[1] / "toy" / "export"
    for file in exported.iterdir():
        assert (shelf / file.name).is_file()

"""The recipes of the captioner and of COLA: their cells, and the sheet of captions."""

from pathlib import Path

from PIL import Image

from studio.catalog.run import Run
from studio.evidence.reproduce import Reproduce, recipe_of
from studio.evidence.tables import Finished
from trainers.captioner.reproduce import report


def test_every_cell_of_both_recipes_is_a_run_that_can_be_built():
    for method in ("captioner", "cola"):
        recipe = recipe_of(method)
        cells = recipe.cells(Reproduce(method=method, num_seeds=3))
        assert {cell.seed for cell in cells} == {0, 1, 2}
        assert len({cell.key for cell in cells}) == len(cells)
        assert all(Run.from_dict({**cell.settings["run"], "name": "x"}).loop.steps > 0 for cell in cells)


def test_the_report_shows_captions_before_and_after_beside_their_pictures(tmp_path: Path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "0.png")
    notes = {f"in domain {n}": [str(tmp_path / "0.png"), "a fox", "a 3d fox " * 12] for n in range(3)}
    cell = Finished(
        variant="DiscriTune", unit="stickers", seed=0, settings={}, measures={}, seconds=1.0, pictures={}, facts={},
        commit="", notes=notes,
    )  # fmt: skip
    text = report([cell], tmp_path)
    assert "| in domain 0 | a fox | a 3d fox" in text
    with Image.open(tmp_path / "captioner.png") as sheet:
        assert sheet.width > 900

import json
from pathlib import Path

import pytest
from PIL import Image

from studio.errors import StudioError
from studio.evidence import tables
from studio.evidence.reproduce import Cell, Recipe, Reproduce, Result, new_run, recipe_of, reproduce

GAIN = {"lora": 0.1, "full": 0.2}
UNITS = ("cat", "dog", "owl")


class Toy:
    """A recipe whose cells take no time, and that counts them."""

    def __init__(self, fail_at: str = "", models: dict[str, str] | None = None) -> None:
        self.ran: list[str] = []
        self.fail_at = fail_at
        self.models = models
        self.lr = 1.0

    def cells(self, request):
        return [
            Cell(variant=v, unit=u, seed=s, settings={"lr": self.lr, "v": v, "u": u, "s": s})
            for s in range(request.num_seeds)
            for u in UNITS[: request.num_units or None]
            for v in GAIN
        ]

    def run(self, cell: Cell, folder: Path):
        if cell.name == self.fail_at:
            raise RuntimeError("power cut")
        self.ran.append(cell.name)
        picture = folder / "0.png"
        Image.new("RGB", (8, 8), "teal").save(picture)
        before = 0.2 + 0.01 * UNITS.index(cell.unit)
        after = before + GAIN[cell.variant] + 0.02 * cell.seed + 0.001 * UNITS.index(cell.unit)
        return Result(
            measures={"likeness": (before, after), "drift": (None, 0.5)},
            seconds=3.0,
            pictures={"Base": [str(picture)], "trained": [str(picture)]},
            facts={"hardware": "toy"} | ({"base model": self.models[cell.variant]} if self.models else {}),
        )

    @property
    def recipe(self):
        return Recipe(title="Toy", question="Does it gain?", cells=self.cells, run=self.run)


@pytest.fixture
def ask(tmp_path):
    def ask(**values):
        return Reproduce(
            method="toy", output=str(tmp_path / "cells"), evidence=str(tmp_path / "docs"), **values
        )

    return ask


def _table(tmp_path):
    return json.loads((tmp_path / "docs" / "toy.json").read_text())


def _line(tmp_path, variant, measure):
    return next(x for x in _table(tmp_path)["table"] if (x["variant"], x["measure"]) == (variant, measure))


def test_all_cells_run_once_and_the_tables_are_written(ask, tmp_path):
    toy = Toy()
    events = list(reproduce(ask(), toy.recipe))
    assert len(toy.ran) == len(set(toy.ran)) == 12
    assert [Path(f).name for f in events[-1]["files"]] == ["toy.md", "toy.json", "toy.png"]


def test_finished_cells_are_not_run_again(ask):
    list(reproduce(ask(), Toy().recipe))
    again = Toy()
    events = list(reproduce(ask(), again.recipe))
    assert again.ran == []
    assert not any(e["fresh"] for e in events[:-1])


def test_a_broken_reproduction_goes_on_where_it_was(ask):
    broken = Toy(fail_at="lora/dog/seed-1")
    with pytest.raises(RuntimeError, match="power cut"):
        list(reproduce(ask(), broken.recipe))
    rest = Toy()
    list(reproduce(ask(), rest.recipe))
    assert not set(broken.ran) & set(rest.ran)
    assert len(broken.ran) + len(rest.ran) == 12


def test_the_run_of_a_stopped_cell_is_left_as_it_is(tmp_path):
    names = []
    for _ in range(3):
        names.append(new_run(tmp_path))
        (tmp_path / names[-1]).mkdir()
        (tmp_path / names[-1] / "config.json").touch()

    assert names == ["run", "run-1", "run-2"]


def test_a_changed_setting_runs_the_cells_again(ask):
    list(reproduce(ask(), Toy().recipe))
    changed = Toy()
    changed.lr = 2.0
    list(reproduce(ask(), changed.recipe))
    assert len(changed.ran) == 12


def test_change_and_its_error_count_subjects_not_seeds(ask, tmp_path):
    list(reproduce(ask(), Toy().recipe))
    change = _line(tmp_path, "full", "likeness")["change"]
    assert change["mean"] == pytest.approx(0.2 + 0.01 + 0.001)
    assert change["n"] == 3
    assert change["se"] == pytest.approx(0.001 / 3**0.5)


def test_spread_counts_every_cell(ask, tmp_path):
    list(reproduce(ask(num_units=1), Toy().recipe))
    line = _line(tmp_path, "lora", "likeness")
    assert line["num_cells"] == 2
    assert line["spread"] == pytest.approx(0.02 / 2**0.5)


def test_a_measure_without_a_before_has_no_change(ask, tmp_path):
    list(reproduce(ask(), Toy().recipe))
    line = _line(tmp_path, "lora", "drift")
    assert line["base"] is None
    assert line["change_in_standard_errors"] is None


def test_the_page_says_command_commit_hardware_and_minutes(ask, tmp_path):
    list(reproduce(ask(num_seeds=1), Toy().recipe))
    page = (tmp_path / "docs" / "toy.md").read_text()
    for words in (
        "`studio reproduce toy --num-seeds 1`",
        "- commit: ",
        "- hardware: toy",
        "minutes, all cells: 0.3",
    ):
        assert words in page
    assert "| likeness | 0.210 ± 0.006 | 0.311 ± 0.006 | +0.101 ± 0.001 |" in page


def test_the_page_begins_with_all_variants_side_by_side(ask, tmp_path):
    list(reproduce(ask(num_seeds=1), Toy().recipe))
    page = (tmp_path / "docs" / "toy.md").read_text()
    assert "| measure | base | lora | full |" in page
    assert "| likeness | 0.210 ± 0.006 | 0.311 ± 0.006 | 0.411 ± 0.006 |" in page
    assert page.index("| measure | base | lora | full |") < page.index("## lora")


def test_each_of_several_base_models_has_a_column_before_its_variants(ask, tmp_path):
    list(reproduce(ask(num_seeds=1), Toy(models={"lora": "small 0a1b", "full": "large 2c3d"}).recipe))
    page = (tmp_path / "docs" / "toy.md").read_text()
    assert "| measure | base: small | lora | base: large | full |" in page
    assert "| likeness | 0.210 ± 0.006 | 0.311 ± 0.006 | 0.210 ± 0.006 | 0.411 ± 0.006 |" in page
    with Image.open(tmp_path / "docs" / "toy.png") as image:
        columns = (image.width - 2 * tables.MARGIN - tables.SIDE + tables.GAP) / (tables.TILE + tables.GAP)
    assert columns == 4


def test_only_some_cells_can_be_asked_for(ask):
    toy = Toy()
    list(reproduce(ask(only=("lora/*/seed-0",)), toy.recipe))
    assert toy.ran == ["lora/cat/seed-0", "lora/dog/seed-0", "lora/owl/seed-0"]


def test_a_pattern_that_fits_nothing_shows_what_cells_are_called(ask):
    with pytest.raises(StudioError, match="cells are called such as 'lora/cat/seed-0'"):
        list(reproduce(ask(only=("lara/*",)), Toy().recipe))


def test_the_order_of_the_cells_does_not_change_the_table(ask, tmp_path):
    list(reproduce(ask(), Toy().recipe))
    files = sorted((tmp_path / "cells").glob("*/*/result.json"))
    cells = [tables.Finished(**json.loads(f.read_text())) for f in files]
    forward = {(line.variant, line.measure): line for line in tables.lines(cells)}
    assert forward == {(line.variant, line.measure): line for line in tables.lines(cells[::-1])}


def test_the_grid_has_a_column_a_variant(ask, tmp_path):
    list(reproduce(ask(num_seeds=1), Toy().recipe))
    with Image.open(tmp_path / "docs" / "toy.png") as image:
        columns = (image.width - 2 * tables.MARGIN - tables.SIDE + tables.GAP) / (tables.TILE + tables.GAP)
    assert columns == 3


def test_a_method_without_recipe_is_refused():
    with pytest.raises(StudioError, match="'pretrain' has no recipe"):
        recipe_of("pretrain")

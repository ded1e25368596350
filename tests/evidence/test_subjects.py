import pytest

from studio import assets
from studio.catalog import methods
from studio.evidence.reproduce import Reproduce, recipe_of
from studio.evidence.subjects import Trial, cells, spread, trials, weights_of
from trainers.dreambooth.reproduce import EXAMINATION, VARIANTS


def _named(*names):
    return [Trial(name=n, class_word="", data=assets.root(), exam=assets.root(), prompts=()) for n in names]


def test_without_a_benchmark_the_sample_subject_is_taken():
    (one,) = trials("")
    assert (one.name, one.class_word) == ("unicorn", "animal")
    assert one.data != one.exam


def test_some_subjects_are_taken_evenly_over_all_kinds():
    assert [t.name for t in spread(_named("a", "b", "c", "d", "e", "f"), 3)] == ["a", "c", "e"]
    assert len(spread(_named("a", "b"), 0)) == 2
    assert len(spread(_named("a", "b"), 9)) == 2


def test_the_recipe_of_dreambooth_pairs_lora_and_full_on_every_subject_and_seed():
    found = cells(Reproduce(method="dreambooth", num_seeds=2), "dreambooth", VARIANTS, EXAMINATION)
    assert [cell.name for cell in found] == [
        "lora/unicorn/seed-0",
        "full/unicorn/seed-0",
        "lora/unicorn/seed-1",
        "full/unicorn/seed-1",
    ]
    kinds = [cell.settings["run"]["method"]["adapter"]["kind"] for cell in found]
    assert kinds == ["lora", "full"] * 2
    assert [cell.settings["run"]["seed"] for cell in found] == [0, 0, 1, 1]
    assert len({cell.key for cell in found}) == 4


def test_without_a_benchmark_dreambooth_sweeps_what_its_presets_were_chosen_from():
    found = recipe_of("dreambooth").cells(Reproduce(method="dreambooth", num_seeds=1))
    assert {cell.unit for cell in found} == {"unicorn"}
    rates = {cell.variant: cell.settings["run"]["optim"]["lr"] for cell in found}
    presets = methods.card("dreambooth").presets
    assert rates["lora-prior"] == rates["lora-1e-3"] == presets["tiny"].values["optim.lr"]
    assert rates["full-1e-4"] == presets["tiny-full"].values["optim.lr"]
    assert len({cell.key for cell in found}) == len(found) == 8


@pytest.mark.skipif(not assets.exists("models/studio-tiny"), reason="the embedded model is absent")
def test_a_cell_knows_the_weights_it_starts_from():
    cell = recipe_of("dreambooth").cells(Reproduce(method="dreambooth"))[0]
    assert cell.settings["weights"] == weights_of("studio-tiny") != ""
    assert weights_of("someone/else") == ""

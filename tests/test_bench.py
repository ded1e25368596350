"""The benchmarks know every adapter, and their tables say what was measured."""

from pathlib import Path

import pytest

from studio.adapters import config as c
from studio.bench import attacks, clip
from studio.bench.adapters import Line, shelf, table
from studio.bench.orthogonal import Row
from studio.bench.orthogonal import table as times
from studio.settings.custom import Custom
from tests.trainers.pictures import BACKEND, class_folders, trained_folder


def test_every_adapter_has_a_line_in_the_table():
    assert {type(one) for one in shelf().values()} == {*c.Adapter.__args__} - {Custom}


def test_table_of_adapters_tells_zero_from_rounding():
    text = table({"lora": Line(10, 0.0, 2.4e-7, "studio", 1.0)})
    assert text.splitlines()[-1] == "| lora | 10 | 1.00 | 0 | 2e-07 | studio |"


def test_table_of_times_has_ratios_and_what_is_added():
    row = Row(256, 320, 1, {"frozen": 0.001, "PEFT LoRA r16": 0.002, "our OFT b32": 0.003})
    assert times([row]).splitlines()[-1] == "| our OFT b32 | 3.0 ms (1.50, +2.0) |"


def test_attacks_are_timed_and_compared_or_said_to_have_nothing_to_compare_with(tmp_path: Path):
    settings = attacks.AttackBench(
        model=trained_folder(tmp_path),
        data=class_folders(tmp_path / "pictures"),
        num_images=4,
        batch=4,
        steps=2,
        rounds=3,
        hardware=BACKEND,
    )
    found = attacks.compare(settings).as_dict()
    assert found["studio"] > 0
    assert ("ratio" in found) != ("is not installed" in str(found[attacks.OTHER]))


def test_a_missing_library_is_a_sentence_with_the_command_to_install_it():
    found = attacks.Compared(10.0, None, 0.5, None).as_dict()
    assert found[attacks.OTHER].endswith("uv pip install --no-deps torchattacks")


def test_the_difference_of_accuracies_is_in_points():
    found = attacks.Compared(30.0, 20.0, 0.5, 0.505).as_dict()
    assert found["difference in points"] == pytest.approx(0.5)
    assert found["ratio"] == pytest.approx(1.5)


def test_both_contrastive_loops_are_timed():
    found = clip.compare(clip.ClipBench(model="studio-tiny-clip", batch=4, steps=1, rounds=3, device="cpu"))
    assert found.ratio > 0
    assert len(found.ours) == len(found.plain) == 3

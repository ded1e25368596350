"""A small part of the fuzzing that `python -m tests.campaign` does at length."""

import contextlib
from pathlib import Path

import pytest
import torch

from studio.catalog.run import Run
from studio.data import captions
from studio.errors import StudioError
from studio.models import weighting
from studio.records import recipes
from studio.records.runs import RunFolder
from studio.records.trained import CARD, find
from tests import fuzz


@pytest.mark.filterwarnings("ignore")
def test_changed_files_of_others_are_read_or_refused_in_a_sentence(tmp_path: Path):
    found, faults = fuzz.run(tmp_path, 800, seed=3)
    assert faults == []
    assert {name for name, counts in found.items() if counts["read"]} >= {
        "captions",
        "events",
        "text",
        "manifests",
    }


def test_events_with_bad_bytes_or_parts_are_left_out(tmp_path: Path):
    good = b'{"event": "step", "step": 1}\n'
    (tmp_path / "events.jsonl").write_bytes(
        good + b'{"event": "st\xff"}\n{"event": "step", "step": "x"}\n[1]\n{"event": 7}\n' + good
    )
    assert [event["step"] for event in RunFolder(tmp_path).read_events()] == [1, 1]


@pytest.mark.parametrize(
    "text", ["a\nSteps: x", "a\nSteps: 1e999", "a\nSteps: 2, Size: 5#x5", "a\nSteps: 2, Seed: \u00b2"]
)
def test_a_recipe_of_another_program_with_a_broken_number_is_one_sentence(text: str):
    with pytest.raises(StudioError, match=r"which is no number|was given as"):
        recipes.from_parameters(text)


@pytest.mark.parametrize(
    "card", ['"text"', "[]", "null", '{"method": "jedi", "model": "", "settings": {}, "text": "x"}']
)
def test_a_method_card_that_is_none_is_one_sentence(card: str, tmp_path: Path):
    (tmp_path / CARD).write_text(card)
    with pytest.raises(StudioError, match="is damaged"):
        find(tmp_path)


def test_a_method_may_be_named_as_a_person_writes_it():
    with pytest.raises(StudioError, match=r"class_word|data"):
        Run.from_dict({"method": "dreambooth"})


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "(a:" + "9" * 100_000 + ")",
        "{a|" * 33_000,
        "(" * 100_000,
        "(a:" * 30_000,
        "{" * 50_000 + "a" + "}" * 50_000,
    ],
)
def test_long_prompts_and_captions_do_not_hang(text: str):
    with contextlib.suppress(StudioError):
        weighting.parse(text)
    captions.choose(text, torch.Generator())

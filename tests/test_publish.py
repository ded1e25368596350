"""The model card of a run, up to the upload."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from studio.catalog.run import Run
from studio.errors import StudioError
from studio.records import runs
from studio.settings.run import Loop, Preview
from studio.training.train import run_to_end
from studio.weights import publish
from tests.toy.config import Toy


def test_the_card_tells_the_words_that_the_files_say_and_what_the_files_are_for(tmp_path: Path) -> None:
    folder = runs.create(Run(method=Toy(), output=str(tmp_path), name="rex"))
    told = {"modelspec.trigger_phrase": "sks dog"}
    save_file({"x": torch.zeros(1)}, folder.export / "rex.safetensors", metadata=told)
    text = publish.card(folder)
    assert "instance_prompt: sks dog" in text
    assert "`rex.safetensors`: A1111, Forge, ComfyUI" in text


def test_the_card_names_base_scores_and_settings(tmp_path: Path) -> None:
    run = Run(method=Toy(), output=str(tmp_path), name="toy", loop=Loop(steps=2), preview=Preview(every=1))
    text = publish.card(run_to_end(run))
    assert "base_model: line" in text
    assert "- quality: -" in text
    assert '"steps": 2' in text


def test_no_network_is_one_clear_sentence(tmp_path: Path) -> None:
    folder = run_to_end(Run(method=Toy(), output=str(tmp_path), name="toy", loop=Loop(steps=1)))
    with pytest.raises(StudioError, match="could not be published"):
        publish.push(folder, "someone/toy")

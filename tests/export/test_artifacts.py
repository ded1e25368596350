"""Artifacts load back into a fresh model, stack, and say what does not fit."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.adapters.build import names
from studio.adapters.config import Export, Full
from studio.adapters.strength import set_strength
from studio.adapters.verify import ask
from studio.backend.core import Backend
from studio.errors import StudioError
from studio.models.build import load
from studio.settings.run import Hardware
from studio.weights import artifacts
from studio.weights.export import export
from tests.export.conftest import LORA, train


@pytest.fixture
def run(family, tmp_path) -> Path:
    """A run folder with an export."""
    folder = tmp_path / "rex"
    export(family, train(family, LORA), folder / "export", settings=Export(trigger="sks dog"))
    (folder / "config.json").write_text("{}")
    return folder


def test_a_run_folder_loads_and_tells_its_trigger(run, family, untrained):
    fresh = untrained()
    found = artifacts.load(run, fresh)
    assert (found.kind, found.name, found.trigger) == ("lora", "rex", "sks dog")
    assert ask(family, {}).difference(ask(fresh, {})) <= 1e-4


def test_artifacts_stack_with_strengths_of_their_own(run, untrained):
    fresh = untrained()
    base = ask(fresh, {})
    artifacts.load(run, fresh, 0.5)
    second = artifacts.load(run, fresh, 0.5)
    assert second.name == "rex_2"
    twice = ask(fresh, {})
    set_strength(fresh.modules(), "rex_2", 0.0)
    set_strength(fresh.modules(), "rex", 1.0)
    assert twice.difference(ask(fresh, {})) <= 1e-5
    set_strength(fresh.modules(), "rex", 0.0)
    assert base.difference(ask(fresh, {})) == 0


def test_loaded_artifacts_do_not_train(run, untrained):
    fresh = untrained()
    artifacts.load(run, fresh)
    assert not any(
        value.requires_grad for module in fresh.modules().values() for value in module.parameters()
    )
    assert names(fresh.denoiser) == ["rex"]


def test_a_merged_folder_moves_the_weights_by_its_strength(family, untrained, tmp_path):
    base = ask(family, {})
    [one] = export(family, train(family, LORA), tmp_path / "export", settings=Export(formats=("merged",)))
    fresh = untrained()
    artifacts.load(one.path, fresh, 0.0)
    assert base.difference(ask(fresh, {})) == 0
    artifacts.load(one.path, fresh, 1.0)
    assert ask(family, {}).difference(ask(fresh, {})) <= 1e-4


def test_sd3_without_t5_is_exported_and_loaded_whole(tmp_path):
    backend = Backend(Hardware(device="cpu", precision="fp32"))
    family, fresh = (load("studio-tiny-dit", backend) for _ in range(2))
    [one] = export(family, train(family, Full(), size=0.01), tmp_path / "export")
    assert one.difference <= 1e-4
    artifacts.load(one.path, fresh)
    assert ask(family, {}).difference(ask(fresh, {})) <= 1e-4
    again = load(str(one.path), backend)
    assert ask(family, {}).difference(ask(again, {})) <= 1e-4


def test_an_embedding_file_adds_its_word(untrained, tmp_path):
    family = untrained()
    path = tmp_path / "rex.safetensors"
    save_file({"<rex>": torch.randn(1, 32)}, path)
    found = artifacts.load(path, family)
    assert (found.kind, found.name) == ("embedding", "<rex>")
    ids = family.tokenizers["tokenizer"]("<rex>").input_ids
    assert len(ids) == 3


def test_two_artifacts_with_one_word_are_refused(untrained, tmp_path):
    family = untrained()
    path = tmp_path / "rex.safetensors"
    save_file({"<rex>": torch.randn(2, 32)}, path)
    artifacts.load(path, family)
    with pytest.raises(StudioError, match="brings the word '<rex>', which the model has already"):
        artifacts.load(path, family)


def test_an_embedding_of_another_width_is_refused(untrained, tmp_path):
    save_file({"<rex>": torch.randn(1, 48)}, tmp_path / "rex.safetensors")
    with pytest.raises(StudioError, match="vectors of width 48, but the text encoder of sd1 has 32"):
        artifacts.load(tmp_path / "rex.safetensors", untrained())


def test_vectors_for_an_encoder_that_is_not_there_are_refused(untrained, tmp_path):
    save_file({"clip_l": torch.randn(1, 32), "clip_g": torch.randn(1, 32)}, tmp_path / "rex.safetensors")
    with pytest.raises(StudioError, match="has vectors for clip_g, which flux has not"):
        artifacts.load(tmp_path / "rex.safetensors", untrained("flux"))


def test_another_family_is_named_in_the_refusal(run, untrained):
    with pytest.raises(StudioError, match="made for sd1, but the model is sdxl"):
        artifacts.load(run, untrained("sdxl"))


def test_another_size_of_the_family_is_told_by_its_first_layer(run, untrained, caplog):
    path = run / "export" / "pytorch_lora_weights.safetensors"
    values = load_file(path)
    save_file(
        {key: value[:, :4].clone() if "lora_A" in key else value for key, value in values.items()}, path
    )
    with pytest.raises(
        StudioError, match=r"does not fit the sd1 model: size mismatch for .*; load it on its own base"
    ):
        artifacts.load(path, untrained())
    assert "size mismatch" not in caplog.text


def test_a_truncated_file_is_refused(run, family):
    path = run / "export" / "pytorch_lora_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StudioError, match="not a whole safetensors file"):
        artifacts.load(path, family)


def test_a_file_of_something_else_is_refused(tmp_path, family):
    (tmp_path / "notes").write_text("no weights")
    with pytest.raises(StudioError, match="holds no weights that can be read"):
        artifacts.load(tmp_path / "notes", family)


def test_a_checkpoint_is_refused_with_the_run_to_give(tmp_path, family):
    folder = tmp_path / "rex" / "checkpoints" / "step-00000004"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    save_file(
        {"unet/a.lora_A.studio.weight": torch.zeros(2, 2), "b": torch.zeros(1)},
        folder / "weights.safetensors",
    )
    with pytest.raises(StudioError, match=r"is a checkpoint, .* give what the run exported: .*rex\."):
        artifacts.load(folder / "weights.safetensors", family)


def test_pickles_of_weights_are_read_and_of_more_are_not(run, untrained):
    fresh = untrained()
    path = run / "export" / "rex.bin"
    torch.save(load_file(run / "export" / "pytorch_lora_weights.safetensors"), path)
    assert artifacts.load(path, fresh).kind == "lora"
    torch.save({"a": Path}, path)
    with pytest.raises(StudioError, match="is a pickle that holds more than weights"):
        artifacts.load(path, fresh)


@pytest.mark.parametrize("kept", [dict, torch.nn.ParameterDict])
def test_an_embedding_of_a1111_adds_its_word(kept, untrained, tmp_path):
    family, vectors = untrained(), torch.randn(2, 32)
    saved = {
        "string_to_token": {"*": 265},
        "string_to_param": kept({"*": torch.nn.Parameter(vectors)}),
        "name": "x",
        "step": 9,
    }
    torch.save(saved, tmp_path / "rex.pt")
    found = artifacts.load(tmp_path / "rex.pt", family)
    assert (found.kind, found.name) == ("embedding", "<rex>")
    ids = family.tokenizers["tokenizer"]("<rex>").input_ids
    torch.testing.assert_close(
        family.text_encoders["text_encoder"].get_input_embeddings().weight[ids[1]], vectors[0]
    )


def test_a_run_without_export_says_how_to_get_one(tmp_path, family):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StudioError, match="has no export yet; write one with `studio export"):
        artifacts.load(tmp_path, family)


def test_several_files_ask_for_one(run, family):
    (run / "export" / "pytorch_lora_weights.safetensors").unlink()
    shutil.copy(run / "export" / "rex.safetensors", run / "export" / "max.safetensors")
    with pytest.raises(StudioError, match=r"max\.safetensors, rex\.safetensors.*name one"):
        artifacts.load(run, family)


def test_a_whole_checkpoint_is_not_an_artifact(tmp_path, family):
    save_file(
        {"model.diffusion_model.x": torch.zeros(1), "y": torch.zeros(1)}, tmp_path / "model.safetensors"
    )
    with pytest.raises(StudioError, match="neither a LoRA nor a text embedding"):
        artifacts.load(tmp_path / "model.safetensors", family)

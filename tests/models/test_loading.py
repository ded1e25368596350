"""Loading by folder, single file and name, and what is said when that cannot work."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from studio.backend.core import Backend
from studio.contracts.sampling import Request
from studio.errors import StudioError
from studio.models import build
from studio.models.build import load
from studio.models.draw import draw
from studio.models.quantized import is_quantized
from studio.models.tiny import T5_TOKENS
from studio.models.tokenizers import clip_tokenizer
from studio.settings.run import Hardware
from studio.settings.sampling import Text

_SPEC = importlib.util.spec_from_file_location(
    "original_layout", Path(__file__).parent / "original_layout.py"
)
original_layout = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(original_layout)

ONE = Request(prompts=["a photo of a dog"], steps=2)


def furthest(one, other):
    """Largest difference in levels of 255; sums in another order may round one level apart."""
    return max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True))


def test_a_saved_folder_draws_the_same_picture(family, backend, tmp_path):
    family.pipeline().save_pretrained(tmp_path, safe_serialization=True)
    again = load(str(tmp_path), backend, text=Text(t5_tokens=T5_TOKENS))
    assert again.name == family.name
    assert again.prediction == family.prediction
    assert again.fingerprint() == family.fingerprint()
    one = replace(ONE, height=family.default_size, width=family.default_size)  # not every folder says it
    assert furthest(draw(again, one)[0], draw(family, one)[0]) <= 1


@pytest.fixture(scope="module")
def checkpoint(families, tmp_path_factory):
    """A single file, and beside it a folder of settings alone."""
    path = tmp_path_factory.mktemp("single") / "model.safetensors"
    pipeline = families["sd1"].pipeline()
    original_layout.write(pipeline, path)
    pipeline.save_pretrained(path.with_suffix(""))
    for weights in path.with_suffix("").glob("*/*.safetensors"):
        weights.unlink()
    return path


def test_a_single_file_draws_the_same_picture_as_the_model_it_holds(families, backend, checkpoint):
    again = load(str(checkpoint), backend)
    assert again.fingerprint() == families["sd1"].fingerprint()
    assert furthest(draw(again, ONE)[0], draw(families["sd1"], ONE)[0]) <= 1


def test_clips_tokenizer_gives_clips_numbers():
    tokenizer = clip_tokenizer(pad_token="!")
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer.pad_token_id == 0
    assert clip_tokenizer(pad_token="<|endoftext|>").pad_token_id == 49407


def test_a_folder_that_is_no_model_is_named(backend, tmp_path):
    with pytest.raises(StudioError, match=r"has no model_index.json"):
        load(str(tmp_path), backend)


def test_a_folder_of_another_kind_of_pipeline_is_named(backend, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "PixArtAlphaPipeline"}))
    with pytest.raises(StudioError, match=r"PixArtAlphaPipeline.*Available: ChromaPipeline"):
        load(str(tmp_path), backend)


def test_a_truncated_weight_file_is_named(families, backend, tmp_path):
    families["sd1"].pipeline().save_pretrained(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(StudioError, match=r"unet.*is not a whole safetensors file"):
        load(str(tmp_path), backend)


def test_missing_weights_are_named(families, backend, tmp_path):
    families["sd1"].pipeline().save_pretrained(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(StudioError, match="cannot be loaded"):
        load(str(tmp_path), backend)


def test_a_single_file_that_is_no_model_is_named(backend, tmp_path):
    path = tmp_path / "lora.safetensors"
    save_file({"lora_unet_down.lora_up.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(StudioError, match=r"no U-Net or transformer.*--artifact"):
        load(str(path), backend)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(StudioError, match="is not a whole safetensors file"):
        load(str(path), backend)


def test_an_absent_file_and_a_pickle_are_refused(backend):
    with pytest.raises(StudioError, match="There is no file"):
        load("nowhere/model.safetensors", backend)
    with pytest.raises(StudioError, match="is a pickle"):
        load("model.ckpt", backend)


def test_an_unknown_name_offers_the_nearest(backend):
    with pytest.raises(StudioError, match="did you mean 'studio-tiny'"):
        load("studio-tyni", backend)
    with pytest.raises(StudioError, match="did you mean 'tiny:sdxl'"):
        load("tiny:sdxxl", backend)


def test_a_hub_name_that_is_not_cached_is_refused_offline(backend):
    with pytest.raises(StudioError, match=r"not in the local cache .* and HF_HUB_OFFLINE is set"):
        load("somebody/some-model", backend)


@pytest.mark.parametrize("coding", ["nf4", "int8", "fp8"])
@pytest.mark.parametrize("key", ["flux", "sd3", "sdxl"])
def test_a_folder_is_quantized_but_for_encoders_that_methods_train(families, tmp_path, key, coding):
    families[key].pipeline().save_pretrained(tmp_path)
    family = load(str(tmp_path), Backend(Hardware(device="cpu", precision="fp32", quantize=coding)))
    kinds = {name: is_quantized([module]) for name, module in family.modules().items()}
    trained = {*family.card.words.trains, "vae"}
    assert kinds == {name: name not in trained for name in kinds}
    assert draw(family, ONE)[0].size == (family.default_size, family.default_size)


def test_the_embedded_model_is_of_the_sd_kind(backend):
    family = load(build.EMBEDDED, backend)
    assert family.name == "sd1"
    assert draw(family, ONE)[0].size == (family.default_size, family.default_size)

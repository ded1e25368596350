"""Files and folders that are broken, or made to do harm: refused in a sentence by what they say of themselves, nothing run."""

import json
import shutil
import struct
import sys

import pytest

from studio.catalog import families, recognize
from studio.catalog.family import load as imported
from studio.errors import StudioError
from studio.models.build import load

KEY = "model.diffusion_model.input_blocks.0.0.weight"
ATTENDS = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
DEEP = 100_000


def tensor(shape, end=16):
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}


HEADERS = {
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a shape of words": {KEY: tensor(["a", "b"])},
    "a shape below zero": {KEY: tensor([-1, 4, 3, 3])},
    "an end that is no number": b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,NaN]}}',
    "an end that is a fraction": {KEY: tensor([4], 16.5)},
    "a dtype that is a list": {KEY: tensor([4]) | {"dtype": ["F32"]}},
    "metadata that is a list": {"__metadata__": ["x"], KEY: tensor([4])},
    "metadata that is a number": {"__metadata__": {"modelspec.prediction_type": 5}, KEY: tensor([4])},
}


def single(folder, header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    return file


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_is_none_is_told_as_one(header, tmp_path):
    refusal = recognize.recognize(str(single(tmp_path, header))).refusal
    assert "not a whole safetensors file (its header cannot be read)" in refusal


def test_a_first_layer_without_channels_is_refused(tmp_path):
    file = single(tmp_path, {KEY: tensor([]), ATTENDS: tensor([320, 768])})
    assert "with 0 input channels" in recognize.recognize(str(file)).refusal


@pytest.mark.parametrize("side", ["64" * 3000, "64000x64000", "0x0"])
def test_a_side_that_no_picture_has_is_not_taken_over(side, tmp_path):
    keys = {KEY: tensor([320, 4, 3, 3]), ATTENDS: tensor([320, 768])}
    known = recognize.recognize(
        str(single(tmp_path, {"__metadata__": {"modelspec.resolution": side}} | keys))
    )
    assert (known.refusal, known.pixels) == ("", 0)


NAMES = {
    "x" * 5000: "cannot be looked at",
    "x" * 5000 + ".safetensors": "cannot be looked at",
    "~no-such-person/x": "cannot be looked at",
    "./nowhere": "There is no folder or file ./nowhere",
    "no/such/path": "There is no folder or file no/such/path",
    "-x/y": "There is no folder or file",
    "a--b/c": "There is no folder or file",
    "a\0b": "Unknown model",
    "sdlx": "did you mean 'sdxl'",
    "FLUX-DEV": "did you mean 'flux-dev'",
    "studio-tiny-dti": "did you mean 'studio-tiny-dit'",
    "tiny:sdlx": "did you mean 'tiny:sdxl'",
    "tiny:": "Unknown tiny model",
    "../models/studio-tiny": "There is no folder or file",
}


@pytest.mark.parametrize(("name", "said"), NAMES.items(), ids=[name[:20] for name in NAMES])
def test_a_name_that_leads_nowhere_is_refused_before_anything_is_loaded(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudioError, match=said.replace(".", r"\.")):
        recognize.check(name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "whole"
    imported(families.cards()["sd1"].tiny)().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model ünï ✨")


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def listed(**parts):
    return lambda folder: change(folder / "model_index.json", **parts)


def settings(part, **values):
    return lambda folder: change(folder / part / "config.json", **values)


def overwritten(file, text):
    return lambda folder: (folder / file).write_text(text)


FOLDERS = {
    "code of another module": (listed(unet=["evil", "X"]), "its unet is code of 'evil'"),
    "code of Python itself": (listed(scheduler=["os", "system"]), "its scheduler is code of 'os'"),
    "a part outside": (listed(**{"../../evil": ["diffusers", "X"]}), "'../../evil', which is no name of a part"),
    "kernels": (settings("text_encoder", _attn_implementation="evil/kernel"), "the code of 'evil/kernel'"),
    "kernels inside": (
        settings("text_encoder", text_config={"attn_implementation": {"": "evil/kernel"}}),
        "the code of 'evil/kernel'",
    ),
    "deep settings": (overwritten("unet/config.json", "[" * DEEP + "]" * DEEP), "unet/config.json is damaged"),
    "settings that are a list": (overwritten("vae/config.json", "[1]"), "vae/config.json is damaged"),
    "a deep index": (overwritten("model_index.json", '{"a":' * DEEP + "1" + "}" * DEEP), "is broken"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "said"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_names_code_or_is_damaged_is_refused_and_runs_nothing(
    spoil, said, folder, backend, monkeypatch
):
    (folder / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(folder))
    spoil(folder)
    with pytest.raises(StudioError, match=said.replace("(", r"\(")):
        load(str(folder), backend)
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    "spoil",
    [
        settings("unet", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        settings("unet", block_out_channels="wide"),
        settings("vae", down_block_types=5),
        listed(unet=["diffusers", "AutoencoderKL"]),
    ],
)
def test_settings_that_the_libraries_cannot_use_are_told_in_a_sentence(spoil, folder, backend):
    spoil(folder)
    with pytest.raises(StudioError, match=r"cannot be loaded: .+"):
        load(str(folder), backend)


def test_a_whole_folder_loads_from_a_path_with_spaces_and_signs(folder, backend):
    assert load(str(folder), backend).card.name == "sd1"

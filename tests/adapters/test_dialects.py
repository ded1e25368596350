"""Files of other tools read as those tools mean them, or are refused in a sentence; the table of all of it is `tests/dialects.py`."""

import importlib.util
import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.adapters.dialects.reading import read_updates
from studio.adapters.merge import merged_copy
from studio.adapters.patched import put_updates
from studio.adapters.strength import set_strength
from studio.adapters.verify import ask
from studio.errors import StudioError
from studio.weights import artifacts
from tests import dialects
from tests.export.conftest import original, untrained  # noqa: F401  # fixtures
from tests.spelled import KINDS, dora_columns, layers, spelled

CELLS = [
    ("read", "sd-scripts, musubi-tuner (kohya)", "flux", "LoRA"),
    ("read", "LyCORIS in kohya keys", "sd3", "DoRA"),
    ("write", "kohya", "sd1", "LoHa"),
]


@pytest.mark.parametrize(("way", "name", "family", "kind"), CELLS)
def test_cells_of_the_page_are_what_is_measured(way, name, family, kind):
    kept = dialects.read()[" | ".join((way, name, family, kind))]
    number, difference = (dialects.reading if way == "read" else dialects.writing)(name, family, kind)
    assert kept.split(",")[0] == str(number)
    assert difference < 1e-5


def test_every_cell_is_exact_or_refused_and_on_the_page():
    cells = dialects.read()
    for key, said in cells.items():
        assert said.startswith("refused: ") or float(said.split(", ")[1]) < 1e-5, key
    assert dialects.PAGE.read_text(encoding="utf-8") == dialects.render(cells)


@pytest.fixture
def sd1(untrained):  # noqa: F811
    return untrained("sd1")


def attention(family):
    state = layers(dict(family.denoiser.state_dict()), dims=(2,))
    return {layer: weight for layer, weight in state.items() if "attn" in layer}


def kohya(family, kind="LoRA"):
    weights = attention(family)
    return spelled({layer: f"lora_unet_{layer.replace('.', '_')}" for layer in weights}, weights, kind)


def changes(family, folder, values, strength=1.0, **header):
    """What a file does to the weights, by way of `--artifact`."""
    save_file(values, folder / "a.safetensors", metadata=header or None)
    before = {key: value.clone() for key, value in family.denoiser.state_dict().items()}
    artifacts.load(folder / "a.safetensors", family, strength)
    after = merged_copy(family.denoiser).state_dict()
    return {key: after[key] - before[key] for key in before if not torch.equal(after[key], before[key])}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_is_what_is_merged_and_half_of_it_at_half_strength(kind, sd1, tmp_path):
    values, wanted = kohya(sd1, kind)
    found = changes(sd1, tmp_path, values, 0.5)
    for layer, change in wanted.items():
        torch.testing.assert_close(found[f"{layer}.weight"], 0.5 * change, rtol=1e-4, atol=1e-5)
    merged = {sd1.denoiser_name: merged_copy(sd1.denoiser)}
    assert ask(sd1, merged).difference(ask(sd1, {})) < 1e-4
    set_strength(sd1.modules(), "a", 0.0)
    assert ask(sd1, {"unet": sd1.denoiser}).difference(ask(sd1, {})) == 0


def test_a_dora_of_columns_is_that(sd1, tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS, "DoRA", dora_columns)
    values, wanted = kohya(sd1, "DoRA")
    found = changes(sd1, tmp_path, values)
    for layer, change in wanted.items():
        torch.testing.assert_close(found[f"{layer}.weight"], change, rtol=1e-4, atol=1e-5)


def test_alpha_of_the_metadata_counts(sd1, tmp_path):
    """As diffusers' `save_lora_weights` writes it; without, a LoRA of alpha 3 and rank 4 is a third too strong."""
    weights = attention(sd1)
    values, wanted = spelled({layer: f"unet.{layer}" for layer in weights}, weights, ends="peft")
    values = {key: value for key, value in values.items() if not key.endswith(".alpha")}
    told = json.dumps({"unet.r": 4, "unet.lora_alpha": 3})
    found = changes(sd1, tmp_path, values, lora_adapter_metadata=told)
    for layer, change in wanted.items():
        torch.testing.assert_close(found[f"{layer}.weight"], change, rtol=1e-4, atol=1e-5)


def test_alpha_beside_a_peft_file_counts(sd1, tmp_path):
    from peft import LoraConfig, get_peft_model

    ends = LoraConfig(r=4, lora_alpha=2, target_modules=["to_q"], init_lora_weights=False)
    get_peft_model(sd1.denoiser, ends).save_pretrained(tmp_path)
    found = artifacts.find(tmp_path / "adapter_model.safetensors")
    assert found == tmp_path


def test_mixed_ranks_bf16_and_fp8_are_read(sd1, tmp_path):
    weights = attention(sd1)
    values = {}
    wanted = {}
    for i, (layer, weight) in enumerate(weights.items()):
        down, up = torch.randn(1 + i % 3, weight.shape[1]), torch.randn(len(weight), 1 + i % 3)
        kind = (torch.bfloat16, torch.float8_e4m3fn, torch.float16)[i % 3]
        values[f"unet.{layer}.lora_A.weight"], values[f"unet.{layer}.lora_B.weight"] = (
            down.to(kind),
            up.to(kind),
        )
        wanted[layer] = up.to(kind).float() @ down.to(kind).float()
    found = changes(sd1, tmp_path, values)
    for layer, change in wanted.items():
        torch.testing.assert_close(found[f"{layer}.weight"], change, rtol=1e-4, atol=1e-4)


def test_words_come_with_a_lora(sd1, tmp_path):
    values, _ = kohya(sd1)
    values["bundle_emb.rex.string_to_param.*"] = torch.randn(2, 32)
    changes(sd1, tmp_path, values)
    assert sd1.tokenizers["tokenizer"]("<rex>").input_ids[1] >= 0
    assert "<rex>" in sd1.tokenizers["tokenizer"].get_vocab()


def broken(change):
    def build(values):
        key = next(key for key in values if key.endswith("lora_up.weight"))
        return change(dict(values), key)

    return build


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v, k: {key: value for key, value in v.items() if key != k}, "has no lora_B .or lora_up.; the file is cut"),
        (lambda v, k: v | {k: torch.full_like(v[k], float("nan"))}, "holds numbers that are not finite"),
        (lambda v, k: v | {k: torch.zeros(3, 4)}, r"size mismatch for .*; load it on its own base"),
        (lambda v, k: v | {"lora_unet_elsewhere.lora_up.weight": v[k].clone()}, "belong to no layer of the sd1 model, first 'lora_unet_els"),
        (lambda v, k: v | {"lora_unet_mid_block.oft_blocks": v[k].clone()}, "is an OFT of LyCORIS or OneTrainer"),
        (lambda v, k: v | {k.replace("lora_up.weight", "hada_w1_a"): v[k].clone()}, "has hada_w1_a beside what makes one adapter"),
    ],
    ids=["no B", "NaN", "other width", "no layer", "OFT", "two kinds"],
)  # fmt: skip
def test_what_cannot_be_taken_is_refused_whole(change, said, sd1, tmp_path):
    values, _ = kohya(sd1)
    with pytest.raises(StudioError, match=said):
        changes(sd1, tmp_path, broken(change)(values))
    assert not hasattr(sd1.denoiser, "peft_config"), "nothing was put on"


def test_a_header_that_lies_is_refused(sd1, tmp_path):
    values, _ = kohya(sd1)
    save_file(values, tmp_path / "a.safetensors")
    whole = bytearray((tmp_path / "a.safetensors").read_bytes())
    whole[:8] = (1 << 40).to_bytes(8, "little")
    (tmp_path / "a.safetensors").write_bytes(whole)
    with pytest.raises(StudioError, match="not a whole safetensors file"):
        artifacts.load(tmp_path / "a.safetensors", sd1)


@pytest.mark.skipif(importlib.util.find_spec("lycoris") is None, reason="needs lycoris-lora")
@pytest.mark.parametrize("settings", [
    {"algo": "lora"}, {"algo": "locon", "use_tucker": True}, {"algo": "loha"}, {"algo": "loha", "use_tucker": True},
    {"algo": "lokr"}, {"algo": "lokr", "decompose_both": True, "factor": 4}, {"algo": "full"},
    {"algo": "lora", "dora_wd": True}, {"algo": "lora", "dora_wd": True, "wd_on_output": False}, {"algo": "lokr", "dora_wd": True},
], ids=str)  # fmt: skip
def test_files_of_lycoris_do_what_lycoris_does(settings, sd1, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lycoris import LycorisNetwork, create_lycoris

        LycorisNetwork.apply_preset({"target_module": ["Attention", "ResnetBlock2D"]})
        trained = dialects.copy.deepcopy(sd1.denoiser)
        network = create_lycoris(trained, 1.0, linear_dim=4, linear_alpha=2, **settings)
        network.apply_to()
        with torch.no_grad():
            for value in network.parameters():
                value.add_(0.1 * torch.randn(value.shape))
        values = {key: value.detach().contiguous().clone() for key, value in network.state_dict().items()}
        theirs = ask(
            sd1, {"unet": trained}
        )  # as it is trained; its merge_to of LoHa and LoKr multiplies by the scale twice
    found = read_updates(values, {}, sd1.card, sd1.modules())
    module = dialects.copy.deepcopy(sd1.denoiser)
    put_updates(found.updates["unet"], module, "x")
    assert theirs.difference(ask(sd1, {})) > 0.01
    assert theirs.difference(ask(sd1, {"unet": module})) < 1e-4


def test_every_family_knows_its_dialects():
    assert {key.split(" | ")[2] for key in dialects.read()} == set(dialects.FAMILIES)


def test_a_text_encoder_is_written_with_text_model(sd1, tmp_path):
    """ComfyUI and transformers 4 look for `text_model.` in front of every layer of CLIP."""
    from studio.adapters.config import Export, Lora
    from studio.weights.export import export
    from tests.export.conftest import train

    modules = train(sd1, Lora(rank=2, layers="blocks"))
    [one] = export(sd1, modules, tmp_path, settings=Export(formats=("diffusers",)))
    text = [key for key in load_file(one.path) if key.startswith("text_encoder.")]
    assert len(text) == 2 * 3 * 6
    assert all(key.startswith("text_encoder.text_model.encoder.layers.") for key in text)

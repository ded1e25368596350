"""`studio weights`: files of adapters, looked into and written anew."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from studio.cli import run
from studio.commands import weights
from studio.console import Console
from studio.errors import StudioError
from studio.weights.rewrite import apart
from studio.weights.structure import opened
from tests.spelled import layers, spelled

MODEL = "tiny:sd1"


@pytest.fixture(scope="module")
def state():
    from studio.weights.structure import of_model

    return layers(dict(of_model(MODEL).modules["unet"].state_dict()), dims=(2,))


@pytest.fixture
def file(state, tmp_path):
    def written(name, kind="LoRA", seed=0):
        stems = {layer: f"lora_unet_{layer.replace('.', '_')}" for layer in state if "attn" in layer}
        values, _ = spelled(stems, state, kind, seed=seed)
        save_file(
            values, tmp_path / name, metadata={"ss_network_dim": "4", "modelspec.trigger_phrase": "sks dog"}
        )
        return tmp_path / name

    return written


def difference(first, second):
    return apart(opened(first, MODEL), opened(second, MODEL))["relative difference"]


def test_inspect_says_in_a_line_what_a_file_is(file, capsys):
    assert run(["weights", "inspect", str(file("a.safetensors", "DoRA")), "--model", MODEL]) == 0
    said = capsys.readouterr().out
    assert "kohya DoRA for Stable Diffusion 1.x, 32 layers, rank 4, alpha 3" in said
    assert "sks dog" in said


@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "LoHa", "LoKr"])
def test_there_and_back_is_the_same_adapter(kind, file, tmp_path):
    first, second = file("a.safetensors", kind), tmp_path / "b.safetensors"
    chosen = "diffusers" if kind in ("LoRA", "DoRA") else "kohya"
    assert (
        run(["weights", "convert", str(first), "--to", str(second), "--format", chosen, "--model", MODEL])
        == 0
    )
    assert difference(first, second) < 1e-6
    with safe_open(second, "pt") as opened_file:
        assert opened_file.metadata()["modelspec.trigger_phrase"] == "sks dog"


def test_precision_is_what_was_asked_for(file, tmp_path):
    to = tmp_path / "b.safetensors"
    run(
        [
            "weights",
            "convert",
            str(file("a.safetensors")),
            "--to",
            str(to),
            "--precision",
            "bf16",
            "--model",
            MODEL,
        ]
    )
    assert {value.dtype for value in load_file(to).values()} == {torch.bfloat16}


def test_two_are_merged_exactly_and_a_resize_to_their_rank_changes_nothing(file, tmp_path, capsys):
    first, second = file("a.safetensors"), file("b.safetensors", seed=1)
    both, small = tmp_path / "both.safetensors", tmp_path / "small.safetensors"
    assert run(["weights", "merge", f"{first}:0.5", f"{second}:-1", "--to", str(both), "--model", MODEL]) == 0
    one, two, sum_ = (opened(path, MODEL).reading.updates["unet"] for path in (first, second, both))
    for layer, update in sum_.items():
        shape = torch.Size(update.additive.sizes)
        wanted = 0.5 * one[layer].additive.change(shape) - two[layer].additive.change(shape)
        torch.testing.assert_close(update.additive.change(shape), wanted, rtol=1e-4, atol=1e-5)
    assert run(["weights", "resize", str(both), "--to", str(small), "--rank", "8", "--model", MODEL]) == 0
    assert difference(both, small) < 1e-5
    assert "keeps 1.0000" in capsys.readouterr().out
    with safe_open(small, "pt") as opened_file:
        assert opened_file.metadata()["ss_network_dim"] == "8"


def test_a_loha_becomes_the_nearest_lora(file, tmp_path, capsys):
    to = tmp_path / "b.safetensors"
    assert (
        run(
            [
                "weights",
                "resize",
                str(file("a.safetensors", "LoHa")),
                "--to",
                str(to),
                "--keep",
                "0.9",
                "--model",
                MODEL,
            ]
        )
        == 0
    )
    assert 0 < difference(tmp_path / "a.safetensors", to) < 0.32
    assert "keeps 0.9" in capsys.readouterr().out


def test_what_two_models_differ_by_is_extracted(tmp_path):
    from diffusers import DiffusionPipeline

    from studio.catalog import families
    from studio.catalog.family import load

    torch.manual_seed(0)
    pipeline = load(families.cards()["sd1"].tiny)()
    pipeline.save_pretrained(tmp_path / "base")
    layer = pipeline.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    change = torch.randn(len(layer.weight), 2) @ torch.randn(2, layer.in_features)
    layer.weight.data += change
    pipeline.save_pretrained(tmp_path / "tuned")
    to = tmp_path / "lora.safetensors"
    assert (
        run(
            [
                "weights",
                "extract",
                str(tmp_path / "base"),
                str(tmp_path / "tuned"),
                "--rank",
                "2",
                "--to",
                str(to),
            ]
        )
        == 0
    )
    again = DiffusionPipeline.from_pretrained(tmp_path / "base")
    again.load_lora_weights(str(to))
    again.fuse_lora()
    moved = (
        again.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
        .get_base_layer()
        .weight
    )
    torch.testing.assert_close(moved, layer.weight, rtol=1e-4, atol=1e-4)


def test_a_file_that_fits_no_model_says_so(tmp_path):
    save_file({"lora_unet_nothing.lora_down.weight": torch.zeros(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(StudioError, match="belong to no layer of the sd1 model, first 'lora_unet_nothing"):
        opened(tmp_path / "a.safetensors", MODEL)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["a.safetensors", "--to", "b.safetensors", "--format", "khya"],
            "Unknown format 'khya'; did you mean 'kohya'",
        ),
        (["a.safetensors"], "--to FILE.safetensors says where"),
        (["a.safetensors", "--to", "b.pt"], "no .safetensors file"),
    ],
)
def test_what_cannot_be_is_refused(given, said, file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file("a.safetensors")
    with pytest.raises(StudioError, match=said):
        weights.convert([*given, "--model", MODEL], Console(silent=True))

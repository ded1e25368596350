"""Exports of every family load through the ecosystem's loaders and give the trained model."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_kohya_flux2_lora_to_diffusers,
    _convert_kohya_flux_lora_to_diffusers,
    _convert_non_diffusers_z_image_lora_to_diffusers,
)
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from studio.adapters import files
from studio.adapters.build import attach
from studio.adapters.config import Export, Full, Hra, Loha, Lokr, Lora
from studio.adapters.formats import to_comfy, to_kohya, updates
from studio.adapters.merge import bare
from studio.adapters.metadata import Facts, architecture
from studio.adapters.updates import LowRank, Update
from studio.adapters.verify import ask
from studio.backend.core import Backend
from studio.catalog import families
from studio.errors import StudioError
from studio.models.build import load
from studio.models.checkpoints.original import one_file
from studio.settings.run import Hardware
from studio.weights import artifacts
from studio.weights import export as exporting
from studio.weights.export import export
from tests.export.conftest import LORA, train
from tests.models import original_layout


@pytest.mark.parametrize("name", families.cards())
def test_lora_of_every_family_loads_in_every_format(name, untrained, tmp_path):
    family = untrained(name)
    modules = train(family, LORA)
    trained = ask(family, {})
    named = {"kohya": family.card.names.kohya, "comfy": family.card.names.comfy}
    formats = ("diffusers", "peft", *(one for one, there in named.items() if there))
    done = export(family, modules, tmp_path / "run" / "export", settings=Export(formats=formats))
    assert [one.format for one in done] == list(formats)
    for one in done:
        assert one.difference <= 1e-4
        fresh = untrained(name)
        artifacts.load(one.path, fresh)
        assert trained.difference(ask(fresh, {})) <= 1e-4, one.format
    fresh = untrained(name)
    fresh.pipeline().load_lora_weights(str(tmp_path / "run" / "export"))
    assert trained.difference(ask(fresh, {})) <= 1e-4, "the folder, by diffusers alone"


@pytest.mark.parametrize(
    ("name", "adapter"),
    [("sdxl", Lora(rank=4, dora=True)), ("flux", Lora(rank=4, dora=True)), ("sd1", Lokr(rank=2))],
)
def test_other_adapters_load_in_every_format_that_fits(name, adapter, untrained, tmp_path):
    family = untrained(name)
    done = export(family, train(family, adapter), tmp_path / "run" / "export")
    assert [one.format for one in done] == (["peft"] if name == "sd1" else ["diffusers", "peft"])
    for one in done:
        fresh = untrained(name)
        artifacts.load(one.path, fresh)
        assert ask(family, {}).difference(ask(fresh, {})) <= 1e-4, one.format


@pytest.mark.parametrize(
    ("name", "adapter", "chosen"),
    [
        ("sdxl", Lora(rank=4, alpha=2, dora=True, conv=True), "kohya"),
        ("flux", Lora(rank=4, dora=True, layers="linear"), "comfy"),
        ("sd3", Lora(rank=4, layers="linear"), "kohya"),
        ("flux2-klein", Lora(rank=4, layers="linear"), "comfy"),
        ("sdxl", Loha(rank=2, alpha=1, conv=True), "kohya"),
        ("flux", Loha(rank=2, layers="linear"), "comfy"),
        ("sd1", Lokr(rank=2, alpha=1, conv=True), "kohya"),
        ("z-image", Lokr(rank=2), "comfy"),
    ],
)
def test_keys_of_comfy_and_kohya_hold_more_than_lora(name, adapter, chosen, untrained, tmp_path):
    family = untrained(name)
    [one] = export(family, train(family, adapter), tmp_path / "export", settings=Export(formats=(chosen,)))
    fresh = untrained(name)
    artifacts.load(one.path, fresh)
    assert ask(family, {}).difference(ask(fresh, {})) <= 1e-4


def test_a_lokr_of_layers_that_are_one_elsewhere_is_refused(untrained, tmp_path):
    family = untrained("flux")
    modules = train(family, Lokr(rank=2))
    with pytest.raises(StudioError, match=r"are the one layer double_blocks.* in kohya and comfy files"):
        export(family, modules, tmp_path, settings=Export(formats=("kohya",)))


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_plain_load_lora_weights_reads_kohya_files_with_convolutions(name, untrained, tmp_path):
    family = untrained(name)
    modules = train(family, Lora(rank=4, alpha=2, conv=True, layers="blocks"))
    [one] = export(family, modules, tmp_path / "run" / "export", settings=Export(formats=("kohya",)))
    fresh = untrained(name)
    fresh.pipeline().load_lora_weights(str(one.path))
    assert ask(family, {}).difference(ask(fresh, {})) <= 1e-4


def test_sdxl_kohya_file_has_the_names_a1111_looks_for(untrained, tmp_path):
    family = untrained("sdxl")
    modules = train(family, Lora(rank=2, conv=True))
    [one] = export(family, modules, tmp_path / "run" / "export", settings=Export(formats=("kohya",)))
    keys = set(load_file(one.path))
    assert "lora_unet_input_blocks_1_0_in_layers_2.lora_down.weight" in keys
    assert "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q.alpha" in keys
    assert "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in keys
    assert "lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in keys
    assert not any("down_blocks" in key for key in keys)


class FluxLayers(nn.Module):
    """The linear layers of one single block and one double block of FLUX.1 at full width, without memory."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {
            "attn.to_q": (3072, 3072),
            "attn.to_k": (3072, 3072),
            "attn.to_v": (3072, 3072),
            "proj_mlp": (3072, 12288),
        }
        for block in ("transformer_blocks", "single_transformer_blocks"):
            for layer, (wide, out) in shapes.items():
                self._put(f"{block}.0.{layer}", nn.Linear(wide, out, device="meta"))

    def _put(self, path: str, layer: nn.Module) -> None:
        parent: nn.Module = self
        *owners, leaf = path.split(".")
        for owner in owners:
            if owner not in parent._modules:
                parent.add_module(owner, nn.Module())
            parent = parent.get_submodule(owner)
        parent.add_module(leaf, layer)


@pytest.mark.parametrize("rename", [to_kohya, to_comfy])
def test_diffusers_reads_fused_flux_files_at_full_width(rename):
    """diffusers' reader has FLUX.1's widths written in, so that tiny models cannot show it."""
    layers = [f"{block}.0.attn.{end}" for block in ("transformer_blocks", "single_transformer_blocks")
              for end in ("to_q", "to_v")]  # fmt: skip
    low = {layer: LowRank(torch.randn(2, 3072), torch.randn(3072, 2), alpha=1.0) for layer in layers}
    parts = {layer: Update(one) for layer, one in low.items()}
    written = rename({"transformer": parts}, families.cards()["flux"], {"transformer": FluxLayers()})
    read = _convert_kohya_flux_lora_to_diffusers(dict(written))
    for layer, one in low.items():
        update = read[f"transformer.{layer}.lora_B.weight"] @ read[f"transformer.{layer}.lora_A.weight"]
        torch.testing.assert_close(update, one.up @ one.down / 2)
    zero = {key for key, value in read.items() if not value.any()}
    assert {key.rsplit(".lora_", 1)[0] for key in read} - {f"transformer.{layer}" for layer in layers} == {
        key.rsplit(".lora_", 1)[0] for key in zero
    }


@pytest.mark.parametrize(
    ("name", "rename", "convert"),
    [
        ("z-image", to_kohya, _convert_non_diffusers_z_image_lora_to_diffusers),
        ("z-image", to_comfy, _convert_non_diffusers_z_image_lora_to_diffusers),
        ("flux2-klein", to_kohya, _convert_kohya_flux2_lora_to_diffusers),
        ("flux2", to_kohya, _convert_kohya_flux2_lora_to_diffusers),
    ],
)
def test_diffusers_own_converters_read_our_files(name, rename, convert, untrained):
    """In every block layer, with an alpha that is not the rank."""
    family = untrained(name)
    modules = train(family, Lora(rank=4, alpha=8, layers="blocks"))
    low = updates(modules, "studio")
    read = convert(dict(rename(low, family.card, modules)))
    for component, layers in low.items():
        for layer, update in layers.items():
            stem, one = f"{component}.{layer}", update.additive
            product = read[f"{stem}.lora_B.weight"] @ read[f"{stem}.lora_A.weight"]
            torch.testing.assert_close(product, one.up @ one.down * one.alpha / one.rank)


def test_merged_folder_holds_no_pickle(family, tmp_path):
    [one] = export(family, train(family, LORA), tmp_path / "export", settings=Export(formats=("merged",)))
    assert one.difference <= 1e-4
    assert (one.path / "model_index.json").is_file()
    assert not [file for file in one.path.rglob("*") if file.suffix in (".bin", ".pt", ".ckpt")]


def test_full_finetuning_exports_a_pipeline(family, tmp_path):
    modules = train(family, Full(), size=0.01)
    done = export(family, modules, tmp_path / "export")
    assert [one.format for one in done] == ["merged"]


@pytest.mark.filterwarnings("ignore")  # diffusers asks for settings of safety checkers
@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_a_whole_model_in_one_file_is_read_by_diffusers_with_equal_pictures(name, untrained, tmp_path):
    family = untrained(name)
    modules = train(family, Full(), size=0.01)
    settings = Export(name="rex", formats=("merged", "single-file"))
    merged, single = export(family, modules, tmp_path / "export", settings=settings)
    assert single.difference <= 1e-4
    kind = family.pipeline_class
    given = {"safety_checker": None}
    if (
        name == "sdxl"
    ):  # diffusers tells its two encoders apart by their widths, which are one in tiny models; ours read it above
        given["text_encoder_2"] = modules["text_encoder_2"]
    one = kind.from_single_file(str(single.path), config=str(merged.path), local_files_only=True, **given)
    other = kind.from_pretrained(str(merged.path), **given)
    pictures = [
        pipeline(
            "a dog", num_inference_steps=2, output_type="pt", generator=torch.Generator().manual_seed(0)
        ).images
        for pipeline in (one, other)
    ]
    torch.testing.assert_close(*pictures, rtol=0, atol=1e-5)
    with safe_open(single.path, "pt") as opened:
        assert opened.metadata()["modelspec.architecture"] == family.card.names.modelspec


def test_one_file_has_the_names_of_the_published_ones(untrained, tmp_path):
    """Every name, as a second writer of such files spells it, and no other."""
    for name in ("sd1", "sdxl"):
        family = untrained(name)
        parts = family.pipeline().components
        assert one_file(family.card, parts).keys() == original_layout.whole(name, parts).keys()


@pytest.mark.parametrize("chosen", ["merged", "peft", "single-file"])
def test_precision_holds_for_every_format(chosen, family, tmp_path):
    modules = train(family, LORA)
    settings = Export(formats=(chosen,), precision="fp16")
    [one] = export(family, modules, tmp_path / "export", settings=settings)
    files = [one.path] if one.path.is_file() else [*one.path.rglob("*.safetensors")]
    types = {value.dtype for file in files for value in load_file(file).values() if value.is_floating_point()}
    assert types == {torch.float16}
    assert next(family.denoiser.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "adapter", "formats", "said"),
    [
        ("flux", Lokr(rank=2), ("kohya",), "are the one layer (double|single)_blocks"),
        ("flux", LORA, ("single-file",), "is not written as one file here"),
        ("sd1", Loha(rank=2), ("diffusers",), "hold LoRA and DoRA"),
        ("sd1", Hra(), ("kohya",), "is not a LoRA, DoRA, LoHa or LoKr"),
        ("sd1", LORA, ("comfy",), "No tool reads LoRAs"),
        ("sd1", Full(), ("kohya",), "is finetuned whole, which kohya cannot hold"),
    ],
)
def test_what_cannot_be_written_is_said_before_training(name, adapter, formats, said, untrained):
    family = untrained(name)
    modules = train(family, adapter)
    with pytest.raises(StudioError, match=said):
        exporting.require_writable(family, modules, Export(formats=formats))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks transformers
def test_a_peft_folder_is_read_by_peft_itself(family, tmp_path):
    modules = train(family, Lokr(rank=2))
    trained = ask(family, {})
    [one] = export(family, modules, tmp_path / "export")
    fresh = {key: bare(module) for key, module in modules.items()}
    for key, module in fresh.items():
        PeftModel.from_pretrained(module, str(one.path / key))
    assert trained.difference(ask(family, fresh)) == 0


def test_file_tells_alpha_trigger_base_and_rank(family, tmp_path):
    modules = train(family, LORA)
    settings = Export(name="rex", trigger="sks dog", author="Ann", formats=("kohya", "diffusers"))
    facts = Facts(base_model="sd-tiny", steps=7, tags={"1_sks": {"dog": 3}})
    kohya, native = export(family, modules, tmp_path / "export", settings=settings, facts=facts)
    with safe_open(kohya.path, "pt") as opened:
        told = opened.metadata()
        assert float(opened.get_tensor(next(key for key in opened.keys() if key.endswith(".alpha")))) == 8  # noqa: SIM118
    assert kohya.path.name == "rex.safetensors"
    assert told["modelspec.sai_model_spec"] == "1.0.1"
    assert told["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert told["modelspec.trigger_phrase"] == "sks dog"
    assert (told["ss_network_dim"], told["ss_network_alpha"]) == ("4", "8.0")
    assert (told["ss_sd_model_name"], told["ss_base_model_version"]) == ("sd-tiny", "sd_v1")
    assert json.loads(told["ss_tag_frequency"]) == {"1_sks": {"dog": 3}}
    with safe_open(native.path, "pt") as opened:
        assert json.loads(opened.metadata()["lora_adapter_metadata"])["unet.r"] == 4


def test_hashes_are_those_of_sd_scripts(untrained, tmp_path):
    """SHA-256 of the file after its header, whatever the header; and SD3.5 and SDXL's code are named."""
    family = untrained("sdxl")
    [one] = export(family, train(family, LORA), tmp_path / "export", settings=Export(formats=("kohya",)))
    whole = one.path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    with safe_open(one.path, "pt") as opened:
        told = opened.metadata()
    assert told["sshs_model_hash"] == hashlib.sha256(whole[start:]).hexdigest()
    assert told["modelspec.hash_sha256"] == f"0x{told['sshs_model_hash']}"
    assert told["modelspec.implementation"] == "https://github.com/Stability-AI/generative-models"
    family = untrained("sd3")
    family.variant = family.card.variant("sd35")
    assert architecture(family) == "stable-diffusion-3-5-medium"


def test_stripped_files_tell_nothing(family, tmp_path):
    modules = train(family, LORA)
    settings = Export(formats=("kohya",), trigger="sks dog", strip_metadata=True)
    [one] = export(family, modules, tmp_path / "export", settings=settings)
    with safe_open(one.path, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_half_precision_files_state_a_wider_tolerance(family, tmp_path):
    modules = train(family, LORA)
    [one] = export(
        family, modules, tmp_path / "export", settings=Export(formats=("kohya",), precision="fp16")
    )
    assert one.tolerance == 5e-3
    assert {value.dtype for value in load_file(one.path).values()} == {torch.float16}


def test_an_export_that_reads_back_wrong_is_not_kept(family, tmp_path, monkeypatch):
    modules = train(family, LORA)

    def damaged(path: Path, values, header) -> None:
        save_file({key: value * 1.5 if "lora_B" in key else value for key, value in values.items()}, path)

    monkeypatch.setattr(exporting, "write", damaged)
    with pytest.raises(StudioError, match="differs from the trained model by"):
        export(family, modules, tmp_path / "export", settings=Export(formats=("diffusers",)))
    assert not any((tmp_path / "export").iterdir())


def test_lost_layers_fail_the_export(family, tmp_path, monkeypatch):
    modules = train(family, LORA)

    def forgetful(path: Path, values, header) -> None:
        save_file({key: value for key, value in values.items() if "text_encoder" not in key}, path)

    monkeypatch.setattr(exporting, "write", forgetful)
    with pytest.raises(StudioError, match="layers did not survive"):
        export(family, modules, tmp_path / "export", settings=Export(formats=("diffusers",)))
    assert not any((tmp_path / "export").iterdir())


@pytest.mark.parametrize("chosen", ["kohya", "peft", "merged"])
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(chosen, family, tmp_path, monkeypatch):
    modules = train(family, LORA)
    folder = tmp_path / "run" / "export"
    [before] = export(family, modules, folder, settings=Export(formats=(chosen,)))
    kept = sorted(str(path) for path in folder.rglob("*"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StudioError, match=r"cannot be written .*No space left"):
        export(family, modules, folder, settings=Export(formats=(chosen,)))
    assert sorted(str(path) for path in folder.rglob("*")) == kept
    assert before.path.exists()


def test_diffusers_files_hold_lora_alone(family, tmp_path):
    modules = train(family, Lokr())
    with pytest.raises(StudioError, match=r"hold LoRA and DoRA, and down_blocks.* has another adapter"):
        export(family, modules, tmp_path, settings=Export(formats=("diffusers",)))


def test_adapters_of_no_file_are_told(family, tmp_path):
    modules = train(family, Hra())
    with pytest.raises(StudioError, match="not a LoRA, DoRA, LoHa or LoKr"):
        export(family, modules, tmp_path, settings=Export(formats=("kohya",)))


def test_comfy_keys_are_for_transformers(family, tmp_path):
    modules = train(family, LORA)
    with pytest.raises(
        StudioError, match=r"Stable Diffusion 1\.x in the comfy format; export diffusers and kohya"
    ):
        export(family, modules, tmp_path, settings=Export(formats=("kohya", "comfy")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("coding", ["nf4", "int8"])
def test_an_adapter_on_quantized_weights_is_written_in_every_format(tmp_path, coding):
    family = load("tiny:flux", Backend(Hardware(device="cpu", precision="fp32", quantize=coding)))
    modules = {"transformer": family.denoiser}
    attach(Lora(rank=4), modules)
    torch.manual_seed(0)
    for value in family.denoiser.parameters():
        if value.requires_grad:
            value.data.normal_(std=0.1)
    wanted = Export(formats=("diffusers", "kohya", "comfy", "peft"))
    assert len(export(family, modules, tmp_path, settings=wanted)) == 4


@pytest.mark.parametrize(
    ("prediction", "zero", "marks"),
    [("eps", False, set()), ("v", False, {"v_pred"}), ("v", True, {"v_pred", "ztsnr"})],
)
def test_one_file_tells_velocity_and_zero_snr_each_where_it_is_so(prediction, zero, marks):
    family = load("tiny:sdxl", Backend(Hardware(device="cpu", precision="fp32")))
    family.prediction = prediction
    family.scheduler_base.register_to_config(rescale_betas_zero_snr=zero)
    assert exporting.noise_marks(family).keys() == marks

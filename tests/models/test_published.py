"""Folders of published settings, with widths that fit here: they load, and their tokenizers give the published numbers."""

import json
import shutil
from importlib import import_module

import pytest
import torch
import transformers

from studio.catalog import families
from studio.models.build import load
from studio.models.language import chat
from tests.models.test_cards import PUBLISHED, folder_of

QWEN3 = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "head_dim": 16,
         "num_key_value_heads": 1, "vocab_size": 151936}  # fmt: skip
SMALLER = {
    "ZImageTransformer2DModel": {"dim": 128, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 1, "n_kv_heads": 1,
                                 "cap_feat_dim": 32},
    "AutoencoderKL": {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 2, "layers_per_block": 1},
    "Flux2Transformer2DModel": {"num_single_layers": 1, "num_attention_heads": 1,
                                "joint_attention_dim": 96},
    "AutoencoderKLFlux2": {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 2, "layers_per_block": 1},
    "Qwen3Model": QWEN3,
    "Qwen3ForCausalLM": QWEN3,
}  # fmt: skip
"""Widths and depths by class; all else stays as it is published."""
NAMES = [
    variant.name
    for card, variant in families.variants()
    if all(part.cls in SMALLER for key, part in variant.architecture.items() if key != "scheduler")
]


def whole(root, folder, to):
    """A published folder with the files that lie elsewhere, as its README says."""
    shutil.copytree(folder, to)
    for same in list(to.rglob("SAME_AS")):
        for line in same.read_text().splitlines():
            name, other = line.split("\t")
            shutil.copyfile(root / other, same.parent / name)
        same.unlink()
    return to


def shrunk(folder):
    """Its networks with random weights and small widths, saved in place."""
    for file in folder.glob("*/config.json"):
        settings = json.loads(file.read_text())
        cls = (
            settings.get("_class_name")
            or json.loads((folder / "model_index.json").read_text())[file.parent.name][1]
        )
        if "_class_name" in settings:
            module = getattr(import_module("diffusers"), cls).from_config(settings | SMALLER[cls])
        else:
            known = getattr(transformers, cls)
            changed = {key: value for key, value in settings.items() if key != "layer_types"} | SMALLER[cls]
            module = known(known.config_class(**changed))
        module.save_pretrained(file.parent)
    return folder


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not here")
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_published_settings_loads_and_predicts(name, backend, tmp_path):
    card, variant = families.by_name(name)
    if not any((folder_of(variant) / "tokenizer").glob("*")):
        pytest.skip("its tokenizer is not here")
    folder = shrunk(whole(PUBLISHED, folder_of(variant), tmp_path / "model"))
    family = load(str(folder), backend)
    assert (family.name, family.variant.name) == (card.name, name)
    assert family.default_size == variant.size
    with torch.no_grad():
        cond = family.embed(["a photo of sks dog", ""])
        found = family.predict(torch.zeros(2, *family.latent_shape(64, 64)), torch.full((2,), 0.5), cond)
    assert torch.isfinite(found).all()
    tokenizer = family.tokenizers["tokenizer"]
    row = next(line for line in (PUBLISHED / "TOKENIZERS.tsv").read_text().splitlines()
               if line.startswith(f"{folder_of(variant).relative_to(PUBLISHED)}/tokenizer\ttokenizer\t"))  # fmt: skip
    assert f"ids={tokenizer('a photo of sks dog').input_ids}" in row
    text = chat(tokenizer, add_generation_prompt=True, enable_thinking=True)("What is this?")
    assert text == "<|im_start|>user\nWhat is this?<|im_end|>\n<|im_start|>assistant\n"

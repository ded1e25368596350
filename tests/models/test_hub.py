"""What is taken from the hub, and what is said where that cannot be."""

import pytest

from studio.errors import StudioError
from studio.models.build import load
from studio.models.checkpoints.hub import hub_folder, taken

HUB = ["README.md", "model.safetensors", "model_index.json", "unet/config.json", "tokenizer/vocab.json",
       "text_encoder/model.safetensors", "text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin",
       "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
       "unet/diffusion_pytorch_model.non_ema.safetensors", "tokenizer/chat_template.jinja", "tokenizer/deep/tokenizer.model",
       "transformer/diffusion_pytorch_model.fp16-00001-of-00002.safetensors", "safety_checker/model.safetensors"]  # fmt: skip


def test_the_hub_gives_one_variant_of_the_weights_and_all_of_the_words():
    found = set(taken(HUB))
    assert found == {
        "model_index.json",
        "unet/config.json",
        "tokenizer/vocab.json",
        "tokenizer/chat_template.jinja",
        "tokenizer/deep/tokenizer.model",
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "transformer/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
    }
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in taken(HUB, half=True)
    assert not any(file.endswith(".safetensors") for file in taken(HUB, ()))


def test_a_gated_license_is_told_before_the_download(backend, monkeypatch):
    monkeypatch.setattr("studio.models.checkpoints.hub.get_token", lambda: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(StudioError, match=r"gated: accept its license \(flux-1-dev.*hf auth login"):
        load("black-forest-labs/FLUX.1-dev", backend)


def test_a_hub_that_cannot_be_reached_is_told(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StudioError, match=r"not in the local cache .* and the hub cannot be reached"):
        hub_folder("somebody/some-model")

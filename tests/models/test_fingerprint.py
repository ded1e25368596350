"""Whatever changes what a part of a model gives changes its hash; nothing else does."""

import copy

import pytest
import torch
from torch import nn

from studio.backend.core import Backend
from studio.models.base import Family
from studio.models.build import load
from studio.models.fingerprint import fingerprint, sums


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sd1", {"scaling_factor": 0.3}),
        ("sd3", {"shift_factor": 0.5}),
        ("sd1", {"latents_mean": [0.0] * 4}),
        ("sd1", {"latents_std": [2.0] * 4}),
    ],
)
def test_settings_of_an_autoencoder_are_part_of_it(name: str, change: dict, backend: Backend) -> None:
    family = load(f"tiny:{name}", backend)
    pipeline = family.pipeline()
    pipeline.vae.register_to_config(**change)
    changed = type(family)(pipeline, backend, family.text)
    assert changed.fingerprint("vae") != family.fingerprint("vae")
    assert changed.fingerprint("unet" if name == "sd1" else "transformer") == family.fingerprint(
        "unet" if name == "sd1" else "transformer"
    )


def test_every_value_counts_also_those_between_the_ones_looked_at() -> None:
    layer = nn.Linear(300, 300)
    seen = {fingerprint(layer)}
    for index in (1, 12_345, 89_999):
        with torch.no_grad():
            layer.weight.view(-1)[index] += 1e-3
        seen.add(fingerprint(layer))
    assert len(seen) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 1000), (2, 3, 32, 32)])
def test_tensors_of_every_type_and_size_are_summed(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    value = torch.randn(shape).mul(3).to(dtype)
    assert sums(value) == sums(value.clone())
    if value.numel():
        other = value.clone()
        other.view(-1)[-1] = not other.view(-1)[-1]
        assert sums(other) != sums(value)


def test_layout_and_offset_in_memory_do_not_count() -> None:
    value = torch.randn(4, 3, 8, 8)
    assert sums(value.to(memory_format=torch.channels_last)) == sums(value)
    assert sums(torch.cat([torch.zeros(1), value.flatten()])[1:].view_as(value)) == sums(value)


def test_a_tokenizer_is_its_words_and_rules_not_its_last_call(families: dict[str, Family]) -> None:
    tokenizer = copy.deepcopy(families["sdxl"].tokenizers["tokenizer"])
    before = fingerprint(tokenizer)
    tokenizer(["a dog"], padding="max_length", truncation=True)
    assert fingerprint(tokenizer) == before
    tokenizer.add_tokens(["<new>"])
    assert fingerprint(tokenizer) != before


def test_the_whole_model_counts_its_scheduler_and_its_tokenizers(backend: Backend) -> None:
    family = load("tiny:sd1", backend)
    pipeline = family.pipeline()
    pipeline.scheduler = type(pipeline.scheduler).from_config(
        pipeline.scheduler.config, prediction_type="v_prediction"
    )
    changed = type(family)(pipeline, backend)
    assert changed.fingerprint() != family.fingerprint()
    assert changed.fingerprint("unet", "vae") == family.fingerprint("unet", "vae")


def test_what_a_file_says_of_itself_does_not_count_in_settings_of_parts_either(
    families: dict[str, Family],
) -> None:
    """A chat model saved and read again names the number type in its text and vision settings."""
    encoder = copy.deepcopy(families["qwen-image"].text_encoders["text_encoder"])
    before = fingerprint(encoder)
    encoder.config.text_config.dtype = "float32"
    assert fingerprint(encoder) == before
    encoder.config.text_config.rms_norm_eps *= 2
    assert fingerprint(encoder) != before

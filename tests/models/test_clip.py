"""Dual encoders: both libraries behind the same verbs."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from studio.adapters import build as adapters
from studio.adapters.config import Lora, Oft
from studio.errors import StudioError
from studio.models.clip import EMBEDDED, TINY, DualEncoder, load_clip

MODELS = (*TINY, *EMBEDDED)
TEXTS = ["a sticker of a fox on a red background", "a bus"]


@cache
def kept(name: str) -> DualEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load_clip(name).requires_grad_(False)


def fresh(name: str) -> DualEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load_clip(name)


def pictures(count: int = 2, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", MODELS)
def test_pictures_and_texts_are_unit_vectors_of_one_space(name: str) -> None:
    model = kept(name)
    images, texts = model.images(pictures(2, 48)), model.texts(TEXTS)
    assert images.shape == texts.shape
    torch.testing.assert_close(images.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    assert model.logits(images, texts).shape == (2, 2)


@pytest.mark.parametrize("name", MODELS)
def test_states_are_one_a_patch_and_one_a_word(name: str) -> None:
    model = kept(name)
    seen = model.image_states(pictures(), layer=-2)
    read = model.text_states(TEXTS, layer=-2)
    assert seen.tokens.shape[::2] == (2, model.width("image"))
    assert int(seen.tokens.shape[1]) == (64 if name in EMBEDDED else 4)
    assert read.tokens.shape == (2, model.context_length, model.width("text"))
    assert read.mask.sum(1).tolist()[0] > read.mask.sum(1).tolist()[1] > 1


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_is_read_back(name: str, tmp_path: Path) -> None:
    model = kept(name)
    model.save(model.network, tmp_path / "saved")
    back = load_clip(str(tmp_path / "saved"))
    torch.testing.assert_close(back.images(pictures()), model.images(pictures()))
    torch.testing.assert_close(back.texts(TEXTS), model.texts(TEXTS))


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_belongs_to_a_tower_and_acts_there(name: str) -> None:
    model = fresh(name)
    model.images(pictures()).sum().backward()
    moved = {key for key, value in model.named_parameters() if value.grad is not None}
    assert moved <= model.parameters_of("image")
    assert "network.logit_scale" in model.parameters_of("scale")


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("adapter", [Lora(rank=2), Oft(block_size=8)], ids=["lora", "oft"])
def test_adapters_reach_both_towers_and_start_at_the_base(name: str, adapter: Lora | Oft) -> None:
    model = fresh(name)
    before = model.images(pictures()), model.texts(TEXTS)
    names = adapters.attach(adapter, {"network": model.network})["network"]
    assert {model.tower_of(key) for key in names} == {"image", "text"}
    torch.testing.assert_close(model.images(pictures()), before[0])
    torch.testing.assert_close(model.texts(TEXTS), before[1])


def test_the_embedded_model_knows_its_names() -> None:
    model = kept("studio-tiny-clip")
    texts = model.texts(["a sticker of a fox", "a fox", "a sticker of a bus"])
    assert texts[0] @ texts[1] > texts[0] @ texts[2]


def test_it_is_what_the_judge_sees() -> None:
    from studio.metrics.backbones import load_clip as judge

    seen = judge("studio-tiny-clip", "", "cpu")
    torch.testing.assert_close(
        seen(pictures(2, 64)), F.normalize(kept("studio-tiny-clip").images(pictures(2, 64)), dim=-1)
    )


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(StudioError, match=r"ViT-B-3[1-9]"):
        load_clip("ViT-B-31")
    with pytest.raises(StudioError, match="tiny:siglip"):
        load_clip("tiny:siglpi")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(StudioError, match=r"'bert'.*clip or siglip"):
        load_clip(str(tmp_path))

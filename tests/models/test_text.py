"""The pooled row is that of the end token, whatever the settings of an encoder call it, and tables of words only grow."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from studio.adapters.build import attach
from studio.adapters.config import Lora
from studio.backend.core import Backend
from studio.catalog.families import cards
from studio.catalog.family import FamilyCard
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.build import load
from studio.models.words import add_words, table, teach
from studio.settings.sampling import Text

POOLING = ("sdxl", "sd3", "flux")
PROMPTS = ["a <new> dog", "<new>", "the cat"]


def published(name: str, backend: Backend) -> Family:
    """A tiny family whose text encoders say `eos_token_id: 2`, as all published ones do."""
    return ending(load(f"tiny:{name}", backend), 2)


def ending(family: Family, number: int) -> Family:
    pipeline = family.pipeline()
    for key, encoder in family.clip_encoders.items():
        encoder.config.eos_token_id = number
        made = type(encoder)(encoder.config).eval()
        made.load_state_dict(encoder.state_dict())
        pipeline.register_modules(**{key: made})
    return type(family)(pipeline, family.backend, family.text)


def new_word(family: Family) -> None:
    """A word added without our own function, which would set the end right."""
    for key, encoder in family.clip_encoders.items():
        tokenizer = family.tokenizers[key.replace("text_encoder", "tokenizer")]
        tokenizer.add_tokens(["<new>"])
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)


def pooled_by_hand(family: Family, prompts: list[str]) -> torch.Tensor:
    """The last layer's row at the first end token, projected where the encoder projects."""
    found = []
    for key, encoder in family.clip_encoders.items():
        tokenizer = family.tokenizers[key.replace("text_encoder", "tokenizer")]
        ids = tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
        rows = encoder(ids).last_hidden_state
        ends = torch.stack([
            row[numbers.index(tokenizer.eos_token_id)]
            for row, numbers in zip(rows, ids.tolist(), strict=True)
        ])  # fmt: skip
        found.append(encoder.text_projection(ends) if "WithProjection" in type(encoder).__name__ else ends)
    return found[-1] if family.name == "sdxl" else torch.cat(found, dim=-1)


@pytest.mark.parametrize("name", POOLING)
@pytest.mark.parametrize("end", ["published", "true"])
@torch.no_grad()
def test_an_added_word_is_not_taken_for_the_end(name: str, end: str, backend: Backend) -> None:
    family = published(name, backend) if end == "published" else load(f"tiny:{name}", backend)
    new_word(family)
    torch.testing.assert_close(family.embed(PROMPTS).pooled, pooled_by_hand(family, PROMPTS))


@pytest.mark.parametrize("name", POOLING)
@torch.no_grad()
def test_a_folder_and_a_file_of_one_model_embed_alike(name: str, backend: Backend) -> None:
    folder = published(name, backend)
    file = ending(folder, folder.tokenizers["tokenizer"].eos_token_id)
    for family in (folder, file):
        new_word(family)
    for key, encoder in folder.clip_encoders.items():
        file.clip_encoders[key].load_state_dict(encoder.state_dict())
    assert torch.equal(folder.embed(PROMPTS).pooled, file.embed(PROMPTS).pooled)


@pytest.mark.parametrize("name", POOLING)
@torch.no_grad()
def test_without_new_words_it_is_what_transformers_pools(name: str, backend: Backend) -> None:
    family = published(name, backend)
    prompts = ["a photo of a dog", "a"]
    theirs: list[Any] = []
    for key, encoder in family.clip_encoders.items():
        tokenizer = family.tokenizers[key.replace("text_encoder", "tokenizer")]
        output = encoder(tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids)
        theirs.append(output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output)
    expected = theirs[-1] if name == "sdxl" else torch.cat(theirs, dim=-1)
    assert torch.equal(family.embed(prompts).pooled, expected)


@pytest.mark.parametrize("name", POOLING)
@torch.no_grad()
def test_a_pipeline_of_diffusers_pools_at_the_end_too(name: str, backend: Backend) -> None:
    family = published(name, backend)
    for key, encoder in family.clip_encoders.items():
        tokenizer = family.tokenizers[key.replace("text_encoder", "tokenizer")]
        teach(encoder, tokenizer, ["<new>"], torch.randn(1, table(encoder).embedding_dim))
    options = {"device": "cpu", "num_images_per_prompt": 1}
    found = family.pipeline().encode_prompt("a <new> dog", **(options | ({} if name == "sdxl" else {"prompt_2": None})
                                            | ({"prompt_3": None} if name == "sd3" else {})))  # fmt: skip
    pooled = found[1] if name == "flux" else found[2]
    torch.testing.assert_close(family.embed(["a <new> dog"]).pooled, pooled)


def test_gradients_reach_an_adapter_through_the_pooled_row(backend: Backend) -> None:
    family = published("sdxl", backend)
    encoder = family.clip_encoders["text_encoder_2"]
    attach(Lora(rank=2), {"text_encoder_2": encoder})
    family.embed(["a dog"]).pooled.square().sum().backward()
    grads = [value.grad for key, value in encoder.named_parameters() if "lora_B" in key]
    assert grads
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)


@pytest.fixture
def alone() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.filterwarnings("ignore:find_unused_parameters=True")
def test_a_wrapped_encoder_pools_and_learns_as_the_bare_one(backend: Backend) -> None:
    family = published("sdxl", backend)
    new_word(family)
    encoder = family.text_encoders["text_encoder_2"].requires_grad_(True)
    bare = family.embed(PROMPTS).pooled
    bare.square().sum().backward()
    expected = {
        key: value.grad.clone() for key, value in encoder.named_parameters() if value.grad is not None
    }
    encoder.zero_grad(set_to_none=True)
    family.text_encoders["text_encoder_2"] = DistributedDataParallel(encoder, find_unused_parameters=True)
    wrapped = family.embed(PROMPTS).pooled
    assert torch.equal(bare, wrapped)
    wrapped.square().sum().backward()
    for key, value in encoder.named_parameters():
        if key in expected:
            torch.testing.assert_close(value.grad, expected[key])


@pytest.mark.parametrize(("name", "most"), [("sd1", 3), ("sdxl", 2)])
def test_more_layers_than_there_are_cannot_be_skipped(name: str, most: int, backend: Backend) -> None:
    load(f"tiny:{name}", backend, text=Text(clip_skip=most)).embed(["a dog"])
    with pytest.raises(StudioError, match=f"clip_skip {most + 1} leaves no layer .* choose at most {most}"):
        load(f"tiny:{name}", backend, text=Text(clip_skip=most + 1)).embed(["a dog"])


def test_a_table_with_more_rows_than_words_keeps_them(backend: Backend) -> None:
    family = published("sd1", backend)
    encoder, tokenizer = family.text_encoders["text_encoder"], family.tokenizers["tokenizer"]
    encoder.resize_token_embeddings(len(tokenizer) + 5, mean_resizing=False)
    before = table(encoder).weight.clone()
    ids = add_words(encoder, tokenizer, ["<one>", "<two>"])
    assert ids.tolist() == [len(tokenizer) - 2, len(tokenizer) - 1]
    assert torch.equal(table(encoder).weight, before)


READ = {"clip_skip": 1, "long_prompts": True, "t5_tokens": 20}


@pytest.mark.parametrize("setting", READ)
@pytest.mark.parametrize("card", cards().values(), ids=lambda card: card.name)
@torch.no_grad()
def test_a_setting_of_text_changes_what_the_denoiser_reads_or_is_told_to_do_nothing(
    card: FamilyCard, setting: str, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = ["a photo of a dog on a red background, " * 4]
    usual = load(f"tiny:{card.name}", backend).embed(prompts)
    found = load(f"tiny:{card.name}", backend, text=Text(**{setting: READ[setting]})).embed(prompts)
    changes = usual.tokens.shape != found.tokens.shape or not torch.equal(usual.tokens, found.tokens)
    assert changes == (setting in card.words.reads)
    if not changes and usual.pooled is not None:
        assert torch.equal(usual.pooled, found.pooled)
    flag = f"--text.{setting.replace('_', '-')} changes nothing with {card.title}"
    assert (flag in caplog.text) == (not changes)

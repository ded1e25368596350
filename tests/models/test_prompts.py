"""Captions are embedded once, whatever their lengths, and kept where the settings say so."""

from pathlib import Path

import torch

from studio.backend.core import Backend
from studio.contracts.condition import Condition
from studio.data.config import Images
from studio.data.encoders import texts_of
from studio.models.base import Family
from studio.models.build import load
from studio.models.denoising import Prompts
from studio.settings.sampling import Text


def same(one: Condition, other: Condition) -> bool:
    found, expected = one.tensors(), other.tensors()
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)


def test_a_condition_is_read_back_from_its_tensors(family: Family) -> None:
    with torch.no_grad():
        cond = family.embed(["a dog", ""])
    assert same(Condition.of(cond.tensors()), cond)


def test_captions_come_in_their_order_and_as_often_as_asked(family: Family) -> None:
    prompts = Prompts(family, trains=False)
    prompts(["a cat"])
    with torch.no_grad():
        alone = {caption: family.embed([caption]).tokens[0] for caption in ("a dog", "a cat")}
    asked = ["a dog", "a cat", "a dog"]
    for caption, row in zip(asked, prompts(asked).tokens, strict=True):
        torch.testing.assert_close(row[: len(alone[caption])], alone[caption])  # a shorter one is padded


def test_long_and_short_captions_share_a_batch(backend: Backend) -> None:
    family = load("tiny:sdxl", backend, text=Text(long_prompts=True))
    prompts = Prompts(family, trains=False)
    captions = ["short", "z " * 100]
    prompts(captions[:1])
    with torch.no_grad():
        assert same(prompts(captions), family.embed(captions))
    assert prompts(captions[:1]).tokens.shape[1] == 77


def test_a_second_run_embeds_nothing_and_other_settings_of_text_embed_anew(
    backend: Backend, tmp_path: Path
) -> None:
    settings = Images(cache="latents+text", cache_folder=str(tmp_path))
    made = []
    for text in (Text(), Text(), Text(clip_skip=1)):
        family = load("tiny:sd1", backend, text=text)
        texts = texts_of(family, settings)
        assert texts is not None
        found = Prompts(family, trains=False, store=texts)(["a dog", "", "a dog"])
        with torch.no_grad():
            for row, caption in enumerate(["a dog", "", "a dog"]):
                assert same(found.rows([row]), family.embed([caption]))
        made.append(texts.cache.misses)
    assert made == [2, 0, 2]


def test_no_text_is_kept_where_latents_alone_are(families: dict[str, Family]) -> None:
    assert texts_of(families["sd1"], Images(cache="latents")) is None

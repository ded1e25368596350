"""Captions vary as the settings say, and only by the generator."""

import torch

from studio.data.captions import choose, fill, shuffle, vary
from studio.data.config import Captions


def draws(settings: Captions, caption: str, count: int = 400) -> list[str]:
    return [vary(caption, settings, torch.Generator().manual_seed(seed)) for seed in range(count)]


def test_slots_take_token_and_class():
    assert fill("a {token} {class} in snow", "sks", "dog") == "a sks dog in snow"


def test_an_empty_token_leaves_no_double_space():
    assert fill("a {token} {class}", "", "dog") == "a dog"


def test_dropout_empties_its_share_of_captions():
    empty = draws(Captions(dropout=0.25), "a dog").count("")
    assert 70 < empty < 130


def test_shuffling_keeps_the_first_tags_and_loses_none():
    shuffled = draws(Captions(shuffle=True, keep=2), "a, b, c, d, e")
    assert all(text.startswith("a, b, ") for text in shuffled)
    assert all(sorted(text.split(", ")) == list("abcde") for text in shuffled)
    assert len(set(shuffled)) == 6


def test_wildcards_take_each_choice():
    assert set(draws(Captions(), "a {red|blue} dog")) == {"a red dog", "a blue dog"}


def test_wildcards_nest():
    chosen = {choose("{a|{b|c}}", torch.Generator().manual_seed(seed)) for seed in range(50)}
    assert chosen == {"a", "b", "c"}


def test_wildcards_can_be_left_alone():
    assert set(draws(Captions(wildcards=False), "a {red|blue} dog", 5)) == {"a {red|blue} dog"}


def test_the_same_generator_gives_the_same_shuffle():
    one, two = (shuffle("a, b, c, d, e, f", 1, torch.Generator().manual_seed(3)) for _ in range(2))
    assert one == two

"""Weights in prompts: read as people write them, applied to the rows of their words, nothing else moved."""

import pytest
import torch

from studio.models.text import BOS, WORD
from studio.models.weighting import parse
from studio.settings.sampling import SampleRequest, Text


def rebuilt(family, **text):
    return type(family)(family.pipeline(), family.backend, Text(t5_tokens=family.text.t5_tokens, **text))


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a (cat)", [("a ", 1.0), ("cat", 1.1)]),
        ("a ((cat)) dog", [("a ", 1.0), ("cat", 1.21), (" dog", 1.0)]),
        ("a (cat:1.4), (dog: .5 )", [("a ", 1.0), ("cat", 1.4), (", ", 1.0), ("dog", 0.5)]),
        ("[cat] (big [red] hat:2)", [("cat", 1 / 1.1), (" ", 1.0), ("big ", 2.0), ("red", 2 / 1.1), (" hat", 2.0)]),
        (r"a \(cat\) :1.2", [("a (cat) :1.2", 1.0)]),
        ("a (cat", [("a ", 1.0), ("cat", 1.1)]),
        ("a cat)", [("a cat)", 1.0)]),
        ("12:30 o'clock", [("12:30 o'clock", 1.0)]),
        ("", [("", 1.0)]),
    ],
)  # fmt: skip
def test_brackets_are_read_as_weights(prompt, pieces):
    found = parse(prompt)
    assert [text for text, _ in found] == [text for text, _ in pieces]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in pieces])


def test_a_prompt_without_marks_is_the_same_bits(family):
    prompts = ["a dog, red: big", "the cat"]
    with torch.no_grad():
        plain, weighted = rebuilt(family).embed(prompts), rebuilt(family, weights=True).embed(prompts)
    assert torch.equal(plain.tokens, weighted.tokens)


@pytest.fixture
def weighing(family):
    """A family that reads weights."""
    if not family.card.words.weights:
        pytest.skip("a language model reads the brackets")
    return family


def test_a_weight_of_one_is_the_prompt_without_it(weighing):
    family = weighing
    with torch.no_grad():
        plain, weighted = (
            rebuilt(family).embed(["a red dog"]),
            rebuilt(family, weights=True).embed(["a (red:1) dog"]),
        )
    torch.testing.assert_close(plain.tokens, weighted.tokens)


def test_a_family_that_reads_no_weights_says_so_and_reads_the_brackets(family, caplog):
    if family.card.words.weights:
        pytest.skip("it reads weights")
    with torch.no_grad():
        off, on = (
            rebuilt(family).embed(["a (red:2) dog"]),
            rebuilt(family, weights=True).embed(["a (red:2) dog"]),
        )
    assert torch.equal(off.tokens, on.tokens)
    assert "reads no weights in prompts" in caplog.text


def test_only_rows_of_weighted_words_move_and_by_their_weight(weighing):
    family = weighing
    both = rebuilt(family, weights=True)
    with torch.no_grad():
        plain, empty = both.embed(["a red dog"]), both.embed([""])
        double, half = both.embed(["a (red:2) dog"]), both.embed(["a (red:0.5) dog"])
    moved = (double.tokens != plain.tokens).any(-1)[0]
    assert moved.any()
    assert not moved[plain.extra["kinds"][0] == BOS].any()
    assert set(plain.extra["kinds"][0, moved].tolist()) == {WORD}
    rows = plain.tokens[0, moved]
    torch.testing.assert_close(
        double.tokens[0, moved] - rows, 2 * (rows - half.tokens[0, moved]), atol=1e-4, rtol=1e-3
    )
    if family.name in ("sd1", "sd2"):
        torch.testing.assert_close(
            double.tokens[0, moved], 2 * rows - empty.tokens[0, moved], atol=1e-5, rtol=1e-4
        )
    if plain.pooled is not None:
        assert torch.equal(plain.pooled, double.pooled)


def test_brackets_stay_where_weights_are_off(family):
    with torch.no_grad():
        off, plain = rebuilt(family).embed(["a (red:2) dog"]), rebuilt(family).embed(["a red dog"])
    assert off.tokens.shape != plain.tokens.shape or not torch.equal(off.tokens, plain.tokens)


def test_weights_reach_the_second_part_of_a_long_prompt(weighing):
    family = weighing
    if family.card.words.rows not in family.card.words.pads:
        pytest.skip("its rows are not CLIP's, and come in one part")
    words = "red " * 90
    both = rebuilt(family, weights=True, long_prompts=True)
    with torch.no_grad():
        plain, weighted = both.embed([words + "dog"]), both.embed([words + "(dog:1.5)"])
    moved = (plain.tokens != weighted.tokens).any(-1)[0].nonzero()[:, 0]
    assert len(moved)
    assert int(moved[0]) > 77


def test_sampling_reads_weights_unless_told_otherwise():
    assert SampleRequest(prompt=("a",)).text.weights
    assert not Text().weights

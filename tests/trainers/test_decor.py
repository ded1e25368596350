"""DECOR: the projection's algebra, which rows change, and that strength 0 is no change at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.sampling import Request
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.build import load
from studio.models.draw import draw
from studio.models.language import tokenizer_of
from studio.models.text import BOS, WORD
from studio.settings.run import Hardware
from trainers.decor.config import Decor
from trainers.decor.edit import DecorEdit, suggest_undesired
from trainers.decor.projection import analyze, directions, project_out
from trainers.decor.projector import load_projector


@pytest.fixture(scope="module")
def family() -> Family:
    return load("tiny:sd1", Backend(Hardware(device="cpu")))


@pytest.fixture(scope="module")
def two() -> Family:
    return load("tiny:sdxl", Backend(Hardware(device="cpu")))


def rows(k: int, d: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(k, d, generator=torch.Generator().manual_seed(seed))


def test_strength_zero_is_the_input_itself() -> None:
    x = rows(5)
    assert project_out(x, directions(rows(3, seed=1), max_rank=8), 0.0) is x


def test_strength_one_leaves_nothing_in_the_undesired_directions() -> None:
    undesired, x = rows(3, seed=1), rows(5)
    left = project_out(x, directions(undesired, max_rank=99), 1.0)
    cosine = torch.nn.functional.cosine_similarity(left[:, None], undesired[None], dim=-1)
    assert cosine.abs().max() < 1e-4


def test_strength_one_half_halves_each_coefficient() -> None:
    v, x = directions(rows(3, seed=1), max_rank=99), rows(5)
    torch.testing.assert_close(project_out(x, v, 0.5) @ v, x @ v / 2)


def test_the_projector_is_symmetric_idempotent_and_of_trace_r() -> None:
    v = directions(rows(3, seed=1), max_rank=99)
    p = v @ v.T
    torch.testing.assert_close(p, p.T)
    torch.testing.assert_close(p @ p, p)
    torch.testing.assert_close(p.trace(), torch.tensor(3.0))
    once = project_out(rows(5), v, 1.0)
    torch.testing.assert_close(project_out(once, v, 1.0), once)


def test_dependent_rows_change_nothing_more() -> None:
    undesired, x = rows(3, seed=1), rows(5)
    more = torch.cat([undesired, undesired[:1], undesired[:1] + undesired[1:2]])
    one, two = (project_out(x, directions(u, max_rank=99), 1.0) for u in (undesired, more))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_no_undesired_rows_is_the_identity() -> None:
    x = rows(5)
    assert project_out(x, directions(rows(3)[:0], max_rank=8), 1.0) is x


def test_orthogonal_rows_stay_and_no_row_grows() -> None:
    v = directions(rows(3, seed=1), max_rank=99)
    x = rows(5)
    outside = x - (x @ v) @ v.T
    torch.testing.assert_close(project_out(outside, v, 1.0), outside, atol=1e-5, rtol=1e-4)
    norms = torch.stack([project_out(x, v, a).norm(dim=1) for a in (0.0, 0.25, 0.5, 1.0)])
    assert (norms.diff(dim=0) <= 1e-5).all()


def test_components_rebuild_the_embedding() -> None:
    x = rows(6)
    found = analyze(x, "abcdef")
    torch.testing.assert_close(found.rebuild(range(6)), x, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.energy.sum(), torch.tensor(1.0))
    assert found.loadings.shape == (6, 6)


def test_only_selected_rows_change(family: Family) -> None:
    with torch.no_grad():
        cond = family.embed(["a dog on grass"])
    edit = DecorEdit(Decor(undesired=("grass",), rows="words"), family)
    with torch.no_grad():
        changed = edit.condition(cond)
    words = cond.extra["kinds"][0] == WORD
    assert torch.equal(changed.tokens[0, ~words], cond.tokens[0, ~words])
    assert not torch.equal(changed.tokens[0, words], cond.tokens[0, words])
    assert 0 < edit.residual[0] < 1


def test_the_begin_row_never_changes(family: Family) -> None:
    with torch.no_grad():
        cond = family.embed(["a dog on grass"])
        changed = DecorEdit(Decor(undesired=("grass",)), family).condition(cond)
    begin = cond.extra["kinds"][0] == BOS
    assert torch.equal(changed.tokens[0, begin], cond.tokens[0, begin])


def test_two_encoders_are_projected_apart(two: Family) -> None:
    with torch.no_grad():
        cond = two.embed(["a dog on grass"])
        edit = DecorEdit(Decor(undesired=("grass",)), two)
        changed = edit.condition(cond)
        blocks, found = edit.blocks(cond.tokens.shape[-1]), edit.projector().blocks
    assert len(blocks) == 2
    editable = cond.extra["kinds"][0] != BOS
    for block, v in zip(blocks, found, strict=True):
        assert (changed.tokens[0, editable][:, block] @ v).abs().max() < 1e-3


@pytest.mark.parametrize("name", ["sd1", "sd3", "flux", "z-image", "flux2-klein", "flux2"])
def test_strength_zero_draws_the_same_picture_bit_for_bit(name: str) -> None:
    model = load(f"tiny:{name}", Backend(Hardware(device="cpu")))
    edit = DecorEdit(Decor(undesired=("grass",), strength=0.0), model)
    drawn = [
        draw(model, Request(prompts=["a dog on grass"], steps=2, edits=edits), Rng.single(0, 0, 1))[
            0
        ].tobytes()
        for edits in ((), (edit,))
    ]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("name", ["sd1", "z-image", "flux2-klein", "flux2"])
def test_the_rows_of_a_carriers_words_are_those_of_the_words(name: str) -> None:
    """Also where a template surrounds the prompt, prompts differ in length, or padding stands on the left."""
    model = load(f"tiny:{name}", Backend(Hardware(device="cpu")))
    edit = DecorEdit(Decor(undesired=("grass",), carriers=("a photo of {}",), end_row=False), model)
    words = ["a very long kind of grass" if name != "sd1" else "grass", "oak"]
    count = sum(len(_pieces(model, f" {word}")) for word in words)
    with torch.no_grad():
        assert len(edit._rows(words)) == count


def _pieces(model: Family, text: str) -> list[int]:
    tokenizer = tokenizer_of(model.tokenizers[model.card.words.rows])
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_a_saved_projector_changes_a_prompt_as_its_words_did(name: str, tmp_path: Path) -> None:
    model = load(f"tiny:{name}", Backend(Hardware(device="cpu")))
    edit = DecorEdit(Decor(undesired=("grass",)), model)
    edit.projector().save(tmp_path / "grass.safetensors")
    again = DecorEdit(Decor(saved=str(tmp_path / "grass.safetensors")), model)
    with torch.no_grad():
        cond = model.embed(["a dog on grass"])
        assert torch.equal(edit.condition(cond).tokens, again.condition(cond).tokens)
    assert load_projector(tmp_path / "grass.safetensors").undesired == ("grass",)


def test_a_projector_of_another_model_is_refused(family: Family, two: Family, tmp_path: Path) -> None:
    DecorEdit(Decor(undesired=("grass",)), two).projector().save(tmp_path / "grass.safetensors")
    edit = DecorEdit(Decor(saved=str(tmp_path / "grass.safetensors")), family)
    with pytest.raises(StudioError, match="made for another model"), torch.no_grad():
        edit.condition(family.embed(["a dog"]))


def test_a_file_that_is_no_projector_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(StudioError, match="Cannot read the projector"):
        load_projector(tmp_path / "text.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(StudioError, match="holds no projector"):
        load_projector(tmp_path / "lora.safetensors")


def test_words_and_a_saved_projector_together_are_refused() -> None:
    with pytest.raises(StudioError, match="two sources"):
        Decor(undesired=("grass",), saved="grass.safetensors")


def test_shared_words_of_the_captions_are_suggested() -> None:
    captions = ["a sks dog on grass", "a sks dog on green grass", "a sks dog in the grass"]
    assert suggest_undesired(captions, "a sks dog on the moon") == ["grass"]

"""Prompts, heads and losses of dual encoders: what each starts from, what moves, what the losses are."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from studio.adapters.config import Lora
from studio.backend.core import Backend
from studio.errors import StudioError
from studio.matching.build import Tuned, tune
from studio.matching.config import (
    Adapted,
    AdaptFormer,
    Cocoop,
    Coop,
    LpFt,
    Maple,
    Probe,
    Promptsrc,
    Tuning,
    Whole,
)
from studio.matching.data import halves
from studio.matching.files import Described, load_matcher, save_matcher
from studio.matching.losses import in_chunks, sigmoid_loss, softmax_loss
from studio.matching.words import sentence
from studio.models.clip import TINY
from studio.settings.run import Hardware
from tests.models.test_clip import fresh, pictures

NAMES = ("cat", "dog", "fox")
TEMPLATES = ("a photo of {a name}", "{name}")
BACKEND = Backend(Hardware(device="cpu", precision="fp32"))
TUNINGS = (
    Whole(locked="text"), Adapted(), AdaptFormer(bottleneck=4), Probe(), LpFt(), Coop(), Coop(phrase="", length=3, per_class=True), Cocoop(),
    Maple(), Promptsrc(),
)  # fmt: skip


def tuned(tuning: Tuning, name: str = "tiny:clip") -> Tuned:
    with BACKEND.seeded(0):
        return tune(fresh(name), tuning, NAMES, TEMPLATES, BACKEND)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("place", ["end", "middle", "front"])
def test_a_context_that_starts_from_a_phrase_says_the_phrase(name: str, place: Any) -> None:
    matcher = tuned(Coop(phrase="a photo", place=place), name).matcher
    said = {"end": "a photo cat", "middle": "a cat photo", "front": "cat a photo"}[place]
    if name != "tiny:open-clip" and place == "middle":  # their pieces are letters: half a phrase is no word
        return
    torch.testing.assert_close(matcher.names(["cat"]), matcher.model.texts([said]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda tuning: type(tuning).__name__)
def test_what_moves_gets_gradients_and_nothing_else_does(tuning: Tuning) -> None:
    made = tuned(tuning)
    matcher = made.matcher
    logits = matcher.logits(matcher.images(pictures(3)), NAMES)
    (logits.square().sum() + matcher.names(NAMES[:2]).sum()).backward()
    moved = {key for key, value in matcher.named_parameters() if value.grad is not None}
    assert moved
    assert moved <= made.trains
    assert {group.name for group in made.groups()} <= {"weights", "vectors"}
    assert frozenset().union(*(group.names or frozenset() for group in made.groups())) == made.trains


@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda tuning: type(tuning).__name__)
def test_what_was_learned_is_read_back(tuning: Tuning, tmp_path: Path) -> None:
    made = tuned(tuning, "studio-tiny-clip")
    with torch.no_grad():
        for key, value in made.matcher.named_parameters():
            if key in made.trains:
                value.add_(0.01 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    described = Described(base="studio-tiny-clip", tuning=tuning, classes=NAMES, templates=TEMPLATES)
    save_matcher(made.matcher.eval(), described, tmp_path / "export")
    back = load_matcher(str(tmp_path), TEMPLATES).matcher
    images = pictures(2, 64)
    with torch.no_grad():
        wanted = made.matcher.logits(made.matcher.images(images), NAMES)
        torch.testing.assert_close(back.logits(back.images(images), NAMES), wanted, rtol=1e-4, atol=1e-4)


def test_a_head_starts_as_the_names() -> None:
    matcher = tuned(Probe()).matcher
    images = matcher.images(pictures(3))
    plain = tuned(Whole()).matcher
    torch.testing.assert_close(
        matcher.logits(images, NAMES), plain.logits(images, NAMES), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(StudioError, match="only its 3 classes"):
        matcher.logits(images, ["owl"])


def test_a_context_for_each_class_knows_no_other_names() -> None:
    with pytest.raises(StudioError, match="no other names, such as 'owl'"):
        tuned(Coop(per_class=True)).matcher.names(["owl"])


def test_a_picture_is_named_by_its_own_context() -> None:
    matcher = tuned(Cocoop(squeeze=2)).matcher
    images = matcher.images(pictures(3))
    alone = torch.cat([matcher.logits(images[i : i + 1], NAMES) for i in range(3)])
    torch.testing.assert_close(matcher.logits(images, NAMES), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("tuning", [Maple(), Promptsrc()], ids=["maple", "promptsrc"])
def test_deep_prompts_reach_both_towers_of_both_libraries(name: str, tuning: Tuning) -> None:
    matcher = tuned(tuning, name).matcher
    plain = matcher.model.images(pictures(2))
    assert not torch.allclose(matcher.images(pictures(2)), plain)
    torch.testing.assert_close(matcher.model.images(pictures(2)), plain, rtol=0, atol=0)
    (matcher.images(pictures(2)).sum() + matcher.names(NAMES).square().sum()).backward()
    assert all(value.grad is not None for value in matcher.learned().values())


@pytest.mark.parametrize("name", ["tiny:clip", "tiny:open-clip"])
def test_the_first_deep_tokens_stand_before_the_tower_s_own_norm(name: str) -> None:
    matcher = tuned(Maple(), name).matcher
    model, vectors = matcher.model, matcher.image_layers()[0]
    norm = model.entry()
    assert isinstance(norm, nn.LayerNorm)
    with torch.no_grad():
        norm.weight.mul_(3)
    seen: list[torch.Tensor] = []
    model.blocks("image")[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    matcher.images(pictures(2))
    torch.testing.assert_close(seen[0][:, -len(vectors) :], norm(vectors).expand(2, -1, -1))


def test_lora_reaches_attention_of_open_clip_and_the_export_is_open_clip_s_own(tmp_path: Path) -> None:
    made = tuned(Adapted(adapter=Lora(rank=2)), "tiny:open-clip")
    assert {"q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"} == {
        name.split(".lora_")[0].rsplit(".", 1)[-1] for name in made.trains if "lora_" in name
    }
    plain, images, texts = fresh("tiny:open-clip"), pictures(2), ["a cat", "dog"]
    torch.testing.assert_close(made.matcher.model.images(images), plain.images(images))
    torch.testing.assert_close(made.matcher.model.texts(texts), plain.texts(texts))
    with torch.no_grad():
        for key, value in made.matcher.named_parameters():
            if "lora_B" in key:
                value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    described = Described(base="tiny:open-clip", tuning=Adapted(), templates=TEMPLATES)
    save_matcher(made.matcher.eval(), described, tmp_path / "export")
    assert (
        load_file(tmp_path / "export" / "open_clip_model.safetensors").keys()
        == plain.network.state_dict().keys()
    )
    back = load_matcher(str(tmp_path), TEMPLATES).matcher.model
    for moved, first, again in (
        (made.matcher.model.images(images), plain.images(images), back.images(images)),
        (made.matcher.model.texts(texts), plain.texts(texts), back.texts(texts)),
    ):
        assert not torch.allclose(moved, first, atol=1e-3)
        torch.testing.assert_close(again, moved, rtol=1e-4, atol=1e-5)


def test_the_head_of_lp_ft_has_a_rate_of_its_own() -> None:
    groups = tuned(LpFt()).groups(LpFt().head_lr_scale)
    rates = {name: group.lr_scale for group in groups for name in group.names or ()}
    assert {name: rate for name, rate in rates.items() if rate != 1} == {"head.weight": 100, "head.bias": 100}
    assert any(name.startswith("model.") for name in rates)


@pytest.mark.parametrize("name", TINY)
def test_bottlenecks_sit_in_both_towers_and_start_as_the_frozen_model(name: str) -> None:
    matcher = tuned(AdaptFormer(bottleneck=4, dropout=0), name).matcher
    texts = [sentence(template, n) for template in TEMPLATES for n in NAMES]
    torch.testing.assert_close(matcher.images(pictures(2)), matcher.model.images(pictures(2)))
    torch.testing.assert_close(matcher.texts(texts), matcher.model.texts(texts))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in matcher.learned().values():
            value.add_(torch.randn(value.shape, generator=generator))
    assert not torch.allclose(matcher.images(pictures(2)), matcher.model.images(pictures(2)))
    assert not torch.allclose(matcher.texts(texts), matcher.model.texts(texts))


def test_only_the_source_of_promptsrc_pulls_and_not_where_nothing_changed() -> None:
    matcher = tuned(Promptsrc()).matcher
    images = pictures(2)
    features = matcher.images(images)
    pulls = matcher.pull(features, matcher.logits(features, NAMES), images, NAMES)
    assert set(pulls) == {"text", "image", "answers"}
    frozen = matcher.model.images(images)
    same = matcher.pull(frozen, matcher.logits(features, NAMES), images, NAMES)
    assert float(same["image"]) == 0


def test_losses_are_those_of_open_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (nn.functional.normalize(torch.randn(5, 8, generator=generator)) for _ in range(2))
    scale, bias = torch.tensor(9.0), torch.tensor(-3.0)
    reference = open_clip.loss.ClipLoss()(images, texts, scale)
    torch.testing.assert_close(softmax_loss(scale * images @ texts.T), reference)
    reference = open_clip.loss.SigLipLoss()(images, texts, scale, bias)
    torch.testing.assert_close(sigmoid_loss(scale * images @ texts.T + bias), reference)


def test_chunks_give_the_gradients_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 4)).double()
    rows = torch.randn(7, 6, dtype=torch.double)
    found = []
    for size in (0, 3):
        net.zero_grad()
        features = nn.functional.normalize(in_chunks(net, rows, size))
        softmax_loss(10 * features @ features.roll(1, 1).T).backward()
        found.append([value.grad.clone() for value in net.parameters()])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-14)


def test_chunks_keep_no_activations() -> None:
    kept: list[int] = []
    net = nn.Sequential(nn.Linear(6, 512), nn.ReLU(), nn.Linear(512, 4))

    def pack(value: torch.Tensor) -> torch.Tensor:
        kept.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        in_chunks(net, torch.randn(8, 6), 4)
    assert max(kept, default=0) < 4 * 512


def test_half_of_the_names_is_base_and_no_name_is_both() -> None:
    base, new = halves(("e", "d", "c", "b", "a"), 0)
    assert (base, new) == (("a", "b", "c"), ("d", "e"))
    other, rest = halves(("e", "d", "c", "b", "a"), 1)
    assert sorted(other + rest) == ["a", "b", "c", "d", "e"]
    assert len(other) == 3


def test_a_sentence_has_its_article_and_a_place_for_the_name() -> None:
    assert sentence("a photo of {a name}.", "ice_cream") == "a photo of an ice cream."
    with pytest.raises(StudioError, match="no place for the name"):
        sentence("a photo", "cat")

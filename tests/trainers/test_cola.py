"""COLA: its measures on matrices made by hand, its adapter pair by pair, and what stays frozen."""

import pytest
import torch

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.sampling import Request
from studio.data.sticker_config import StickerPairs
from studio.errors import StudioError
from studio.models.clip import load_clip
from studio.settings.run import Hardware
from trainers.cola.config import Cola, LinearProbe, Multimodal, PromptTuning
from trainers.cola.exam import hard_average_precision, multi_object
from trainers.cola.heads import MultimodalHead, PromptHead
from trainers.cola.trainer import ColaTrainer, apart, both_ways, load_head, match

SMALL = Multimodal(feed_forward=16)
SCENES = StickerPairs(num_concepts=8)
TEXTS = ["a fox on a red background", "a fox"]


def started(head=SMALL, model="tiny:clip"):
    trainer = ColaTrainer(Cola(model=model, head=head, scenes=SCENES))
    trainer.backend = Backend(Hardware(device="cpu"))
    with trainer.backend.seeded(0):
        trainer.setup(trainer.backend)
    trainer.head.eval()
    return trainer


@pytest.fixture(scope="module")
def clip():
    with Backend(Hardware(device="cpu")).seeded(0):
        return load_clip("tiny:clip")


@pytest.fixture(scope="module")
def head(clip):
    with Backend(Hardware(device="cpu")).seeded(0):
        return MultimodalHead(SMALL, clip).eval()


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_multi_object_measure_is_1_for_identities_and_0_for_swaps():
    assert multi_object(torch.eye(2).expand(4, 2, 2)) == 1
    assert multi_object(torch.eye(2).flip(0).expand(4, 2, 2)) == 0


def test_a_caption_that_prefers_the_other_image_fails_the_item():
    assert (
        multi_object(torch.tensor([[[0.9, 0.8], [0.5, 0.7]]])) == 0
    )  # the second caption fits the first image better


def test_average_precision_ignores_pictures_that_share_no_word():
    positive = torch.tensor([[True], [False], [False]])
    hard = torch.tensor([[True], [True], [False]])
    scores = torch.tensor([[1.0], [0.5], [9.0]])
    assert hard_average_precision(scores, positive, hard) == 1
    assert hard_average_precision(scores, positive, torch.ones_like(hard)) == 0.5


def test_classes_without_a_picture_do_not_count():
    positive = torch.tensor([[True, False], [False, False]])
    assert hard_average_precision(torch.tensor([[1.0, 1.0], [0.0, 0.0]]), positive, ~positive) == 1


def test_scores_of_a_matrix_equal_scores_of_single_pairs(head, pictures):
    with torch.no_grad():
        whole = match(head, pictures, TEXTS)
        single = [[float(match(head, one[None], [text])) for text in TEXTS] for one in pictures]
    assert torch.allclose(whole, torch.tensor(single), atol=1e-5)


def test_padding_does_not_change_a_score(head, clip, pictures):
    with torch.no_grad():
        seen, told = head.see(pictures[:1]), head.read(TEXTS[1:])
        mask = torch.cat([told.mask, torch.zeros(1, 3, dtype=torch.bool)], 1)
        padded = torch.cat([told.tokens, torch.randn(1, 3, told.tokens.shape[2])], 1)
        assert torch.allclose(
            head.adapter(seen, padded, mask), head.adapter(seen, told.tokens, told.mask), atol=1e-5
        )


@pytest.mark.parametrize("kind", [SMALL, LinearProbe(), PromptTuning(tokens=2)])
def test_training_leaves_both_towers_as_they_are(kind):
    trainer = started(kind, "tiny:open-clip")
    before = {key: value.clone() for key, value in trainer.clip.state_dict().items()}
    optimizer = torch.optim.SGD(trainer.head.parameters(), lr=0.1)
    batch = next(trainer.source().stream(0, 0, trainer.backend.shard(4)))
    trainer.loss(batch, Rng.single(0, 1, 4)).total.backward()
    optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in trainer.clip.state_dict().items())
    assert all(p.grad is None for p in trainer.clip.parameters())
    assert all(p.grad is not None for p in trainer.head.parameters())


def test_a_linear_probe_starts_at_clips_own_scores(clip, pictures):
    trainer = started(LinearProbe())
    own = trainer.clip.logits(trainer.clip.images(pictures), trainer.clip.texts(TEXTS))
    with torch.no_grad():
        assert torch.allclose(trainer.scores(pictures, TEXTS), own, atol=1e-4)


def test_a_prompt_that_leaves_no_room_is_refused(clip):
    with pytest.raises(StudioError, match="leaves no room for a caption"):
        PromptHead(PromptTuning(tokens=16), clip).read(["a fox on a red background and an apple " * 12])


def test_an_export_reads_back_and_scores_alike(tmp_path, pictures):
    trainer = started(model="studio-tiny-clip")
    trainer.export(tmp_path)
    _, again = load_head(tmp_path)
    with torch.no_grad():
        assert torch.equal(match(again, pictures, TEXTS), trainer.scores(pictures, TEXTS))


def test_a_preview_scores_twins_that_training_never_shows():
    trainer = started()
    output = trainer.sample(Request(prompts=list(trainer.prompts())), Rng.single(0, 0, 1))
    assert output.logits is not None
    assert output.logits.shape == (2, 2)
    assert 0 <= trainer.score(output, Request())["multi-object"] <= 1


def test_an_equal_caption_of_another_row_is_no_wrong_answer():
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    found = apart(logits, ["a", "b", "a", "c"])
    hidden = found.isinf()
    assert hidden.nonzero().tolist() == [[0, 2], [2, 0]]
    assert torch.equal(found[~hidden], logits[~hidden])
    perfect = torch.full((4, 4), -30.0)
    perfect[[0, 0, 1, 2, 2, 3], [0, 2, 1, 0, 2, 3]] = 30.0  # rows 0 and 2 say the same
    assert both_ways(apart(perfect, ["a", "b", "a", "c"])) < 1e-6
    assert both_ways(perfect) > 0.3


def test_twins_are_told_apart_among_themselves_as_well():
    trainer = started()
    batch = next(trainer.source().stream(0, 0, trainer.backend.shard(6)))
    loss = trainer.loss(batch, Rng.single(0, 1, 6))
    scores = trainer.scores(batch["images"], batch["captions"]) / trainer.config.temperature
    twins = torch.stack([both_ways(scores[n : n + 2, n : n + 2]) for n in (0, 2, 4)]).mean()
    torch.testing.assert_close(loss.parts["loss_twins"], twins)
    torch.testing.assert_close(loss.total, loss.parts["loss_batch"] + twins)

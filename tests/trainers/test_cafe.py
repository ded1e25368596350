"""CAFe: without contrast it is plain finetuning; its contrast is symmetric; chunks change memory, not gradients."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from studio.adapters.config import Full
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.errors import StudioError
from studio.settings.run import Hardware
from tests.cases import chats
from trainers.cafe.config import Cafe
from trainers.cafe.trainer import CafeTrainer, contrastive
from trainers.vlm.config import Vlm
from trainers.vlm.trainer import VlmTrainer

BACKEND = Backend(Hardware(device="cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return chats(Path(tmp_path_factory.mktemp("chats")))


def gradient(data, kind, settings, **changed):
    trainer = kind(settings(data=data, model="tiny:llava", adapter=Full(), **changed))
    trainer.backend = BACKEND
    with BACKEND.seeded(0):
        groups = trainer.setup(BACKEND)
    batch = next(trainer.source().stream(0, 0, BACKEND.shard(3)))
    loss = trainer.loss(batch, Rng.single(0, 1, 3))
    loss.total.backward()
    return loss, torch.cat(
        [p.grad.flatten() for g in groups for p in g.parameters().values() if p.grad is not None]
    )


def test_without_contrast_it_is_plain_finetuning_bit_for_bit(data):
    plain, one = gradient(data, VlmTrainer, Vlm)
    cafe, two = gradient(data, CafeTrainer, Cafe, contrast_weight=0)
    assert torch.equal(plain.total, cafe.total)
    assert torch.equal(one, two)


def test_the_loss_is_the_weighted_sum(data):
    loss, _ = gradient(data, CafeTrainer, Cafe, contrast_weight=0.5)
    plain, _ = gradient(data, VlmTrainer, Vlm)
    assert torch.equal(loss.parts["loss_lm"], plain.total)
    assert torch.allclose(loss.total, loss.parts["loss_lm"] + 0.5 * loss.parts["loss_contrast"])


def test_chunks_give_the_gradient_of_the_whole_batch(data):
    whole, one = gradient(data, CafeTrainer, Cafe)
    parts, two = gradient(data, CafeTrainer, Cafe, chunk=1)
    assert torch.allclose(whole.total, parts.total, atol=1e-6)
    assert torch.allclose(one, two, atol=1e-5)


def test_the_contrast_is_the_same_with_pictures_and_texts_swapped():
    seen, read = F.normalize(torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert torch.allclose(contrastive(seen, read, 0.05)[0], contrastive(read, seen, 0.05)[0])


def test_aligned_pairs_with_orthogonal_negatives_have_almost_no_loss():
    loss, right = contrastive(torch.eye(4), torch.eye(4), 0.05)
    assert loss < 0.01
    assert float(loss) == pytest.approx(math.log(1 + 3 * math.exp(-20)), abs=1e-6)
    assert right == 1


def test_a_conversation_without_a_picture_is_refused(tmp_path):
    file = tmp_path / "bare.json"
    file.write_text(
        '[{"id": "7", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}]}]'
    )
    trainer = CafeTrainer(Cafe(data=str(file), model="tiny:llava"))
    with pytest.raises(StudioError, match="1 conversations have no picture to embed, first '7'"):
        trainer.setup(BACKEND)

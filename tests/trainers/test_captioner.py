"""The captioner: what it reads and writes, its reward, and that rewards teach it."""

import dataclasses

import pytest
import torch
from PIL import Image

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.catalog.run import Run
from studio.chat.caption import caption
from studio.chat.config import Captioning
from studio.contracts.sampling import Request
from studio.data.sticker_config import Stickers
from studio.errors import StudioError
from studio.models.captioner import load_captioner
from studio.rl.text import caption_logp
from studio.settings.run import Hardware, Loop, Optim
from studio.training.verify import verify_resume
from trainers.captioner.config import METHOD, Captioner, Discriminative
from trainers.captioner.exam import Exam, appraise
from trainers.captioner.trainer import CaptionerTrainer

BACKEND = Backend(Hardware(device="cpu"))
TINY, SCENES = "new:tiny:open-clip", Stickers(num_concepts=4)


@pytest.fixture(scope="module")
def tiny():
    with BACKEND.seeded(0):
        return load_captioner(TINY)


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """A captioner on disk that has learned nothing."""
    place = tmp_path_factory.mktemp("captioner")
    tiny.save(place)
    return str(place)


def rewarded(folder, **changed):
    objective = Discriminative(retriever="tiny:clip", **changed)
    return Captioner(model=folder, scenes=SCENES, objective=objective, max_tokens=4, candidates=4)


def started(folder, **changed):
    trainer = CaptionerTrainer(rewarded(folder, **changed))
    trainer.backend = BACKEND
    with BACKEND.seeded(0):
        trainer.setup(BACKEND)
    return trainer


def rollout(trainer, size=4):
    return next(trainer.batches(trainer.source().stream(0, 0, BACKEND.shard(size)), 0))


def test_a_caption_goes_to_tokens_and_back(tiny):
    tokens, mask = tiny.encode(["a fox on a red background", "a fox"])
    assert tiny.texts(tokens) == ["a fox on a red background", "a fox"]
    assert mask.sum(1).tolist() == [7, 3]
    assert torch.equal(tiny.mask(tokens), mask)


def test_a_sampled_captions_probability_is_the_product_of_its_steps(tiny):
    seen = tiny.see(torch.zeros(1, 3, 32, 32))
    tokens, mask = tiny.encode(["a fox"])
    by_hand = 0.0
    with torch.no_grad():
        for place in range(3):
            front = torch.cat([torch.tensor([[tiny.start]]), tokens[:, :place]], 1)
            logits = tiny.writer.decoder(inputs_embeds=tiny.writer.embed(seen, front)).logits[0, -1]
            by_hand += float(logits.log_softmax(-1)[tokens[0, place]])
        whole = caption_logp(tiny.writer(seen, tokens, tiny.start), tokens, mask)
    assert float(whole) == pytest.approx(by_hand, abs=1e-4)


def test_a_saved_captioner_writes_the_same(tiny, folder):
    seen = tiny.see(torch.zeros(2, 3, 32, 32))
    assert torch.equal(tiny.write(seen, max_tokens=5), load_captioner(folder).write(seen, max_tokens=5))


def test_rewards_move_the_language_model_alone(folder):
    trainer = started(folder)
    trainer.loss(rollout(trainer), Rng.single(0, 1, 4)).total.backward()
    assert all(p.grad is None for p in trainer.retriever.parameters())
    assert all(p.grad is None for p in trainer.model.clip.parameters())
    assert all(p.grad is None for p in trainer.model.writer.bridge.parameters())
    assert any(p.grad is not None for p in trainer.model.writer.decoder.parameters())


def test_rewards_scale_cosines_as_the_retriever_does_unless_told_otherwise(folder):
    own = started(folder)
    told = started(folder, reward_temperature=float(own.retriever.logit_scale))
    other = started(folder, reward_temperature=1.0)
    first, second, third = (rollout(each)["rewards"] for each in (own, told, other))
    assert torch.equal(first, second)
    assert not torch.allclose(first, third)


def test_a_batch_of_equal_rewards_has_no_gradient(folder):
    trainer = started(folder, baseline="batch")
    batch = {**rollout(trainer), "advantages": torch.zeros(4)}
    trainer.loss(batch, Rng.single(0, 1, 4)).total.backward()
    assert all(p.grad is None or not p.grad.any() for p in trainer.model.writer.parameters())


def test_the_divergence_starts_at_zero_and_costs_something_once_moved(folder):
    trainer = started(folder, kl_weight=1.0)
    batch = rollout(trainer)
    assert trainer.loss(batch, Rng.single(0, 1, 4)).parts["kl"].abs() < 1e-5
    with torch.no_grad():
        trainer.model.writer.decoder.transformer.ln_f.weight.mul_(1.5)
    assert trainer.loss(batch, Rng.single(0, 1, 4)).parts["kl"] > 1e-3


@pytest.mark.parametrize(
    "changed", [{"baseline": "running-mean"}, {"decode": "greedy", "entropy_weight": 0.1}]
)
def test_resuming_the_rewarded_stage_is_exact(folder, tmp_path, changed):
    run = Run(
        method=rewarded(folder, **changed), output=str(tmp_path), loop=Loop(batch_size=4, log_every=1),
        optim=Optim(lr=1e-3), hardware=Hardware(device="cpu"),
    )  # fmt: skip
    assert verify_resume(run, steps=3, at=1) == []


def test_a_fresh_captioner_cannot_be_rewarded():
    with pytest.raises(StudioError, match="has not learned to write yet"):
        METHOD.check(dataclasses.replace(rewarded("x"), model=TINY))


def test_pictures_without_captions_are_refused_for_likelihood_alone(tiny, folder, tmp_path):
    for n in range(2):
        Image.new("RGB", (40, 40), (90 * n, 0, 0)).save(tmp_path / f"{n}.png")
    trainer = CaptionerTrainer(Captioner(model=folder, data=str(tmp_path)))
    trainer.model, trainer.backend = tiny, BACKEND
    with pytest.raises(StudioError, match="2 of 2 pictures have no caption"):
        trainer.source()
    rewards = started(folder)
    rewards.config = dataclasses.replace(rewards.config, data=str(tmp_path))
    assert rollout(rewards, 2)["tokens"].shape[0] == 2


def test_an_exam_tells_right_names_and_repeated_words(tiny):
    exam = Exam.of(SCENES, {"retrieval": tiny.clip}, candidates=3)
    right = appraise(exam, tiny, tiny.writer, [f"a {text} ." for text in exam.scenes.captions])
    dull = appraise(exam, tiny, tiny.writer, ["word word word"] * 3)
    assert right["object named"] > dull["object named"] == 0
    assert dull["distinct 1-grams"] == pytest.approx(1 / 9)
    assert dull["words"] == 3


def test_previews_are_captions_of_unseen_scenes_with_scores(folder):
    trainer = started(folder)
    output = trainer.sample(Request(), Rng.single(0, 0, 1))
    assert len(output.texts) == 4
    assert {"retrieval", "words", "perplexity at the start", "quality"} <= set(
        trainer.score(output, Request())
    )


def test_the_embedded_captioner_names_what_is_there(tmp_path):
    from studio.data.stickers import draw_scenes

    scenes = draw_scenes(Stickers(group_captions=0.0), 12, torch.Generator().manual_seed(5))
    texts = load_captioner("captioner-tiny").caption(scenes.images)
    exam = Exam(scenes, {}, {}, 12)
    assert exam.named(texts)["object named"] >= 0.75


def test_a_folder_gets_captions_beside_its_pictures_once(folder, tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (40, 40), "red").save(tmp_path / f"{name}.png")
    (tmp_path / "b.txt").write_text("mine")
    settings = Captioning(model=folder, prefix="sks", max_tokens=3, hardware=Hardware(device="cpu"))
    (written,) = caption(tmp_path, settings)
    assert written.path == tmp_path / "a.txt"
    assert written.text.startswith("sks")
    assert (tmp_path / "b.txt").read_text() == "mine"
    assert list(caption(tmp_path, settings)) == []


def test_a_chat_model_can_write_captions_too(tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    settings = Captioning(model="tiny:llava", max_tokens=3, hardware=Hardware(device="cpu"))
    with BACKEND.seeded(0):
        assert [one.path.name for one in caption(tmp_path, settings)] == ["a.txt"]


def test_no_captioner_of_a_name_is_said():
    with pytest.raises(StudioError, match="There is no captioner 'nobody'"):
        load_captioner("nobody")

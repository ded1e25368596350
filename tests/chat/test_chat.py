"""A tiny LLaVA: which tokens the loss counts, batches, answers, what trains, and files that transformers reads."""

import json

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from studio.adapters.config import Full, Lora
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.chat.model import IGNORED, load_vlm
from studio.contracts.sampling import Request
from studio.data.conversations import open_conversations
from studio.errors import StudioError
from studio.settings.run import Hardware
from trainers.vlm.config import Vlm
from trainers.vlm.trainer import VlmTrainer

LORA = Lora(rank=2, layers="linear")
BACKEND = Backend(Hardware(device="cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three conversations: one answer, two answers, no picture."""
    folder = tmp_path_factory.mktemp("chats")
    Image.new("RGB", (40, 40), "red").save(folder / "a.png")

    def said(*texts):
        return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]

    items = [
        {"id": "one", "image": "a.png", "conversations": said("<image>\nColor?", "Red.")},
        {
            "id": "two",
            "image": "a.png",
            "conversations": said("<image>\nColor?", "Red.", "Sure?", "Yes, it is red."),
        },
        {"id": "bare", "conversations": said("Hi", "Hello.")},
    ]
    (folder / "chats.json").write_text(json.dumps(items))
    return str(folder / "chats.json")


@pytest.fixture(scope="module")
def model():
    with BACKEND.seeded(0):
        return load_vlm("tiny:llava")


def started(data, **changed):
    trainer = VlmTrainer(Vlm(data=data, model="tiny:llava", **changed))
    trainer.backend = BACKEND
    with BACKEND.seeded(0):
        groups = trainer.setup(BACKEND)
    return trainer, groups


def test_the_loss_counts_the_answers_and_what_ends_them_alone(model, data):
    two = model.encode(open_conversations(data)[1], 512, cut=False)
    counted = two.inputs["input_ids"][0][two.labels != IGNORED]
    assert model.processor.tokenizer.decode(counted) == "Red.</s>Yes, it is red.</s>"


def test_a_batch_gives_the_losses_of_its_conversations(model, data):
    encoded = [model.encode(one, 512, cut=False) for one in open_conversations(data)]
    with torch.no_grad():
        whole = model.answer_loss(encoded)
        single = torch.cat([model.answer_loss([one]) for one in encoded])
    assert torch.allclose(whole, single, atol=1e-5)


def test_padding_does_not_change_an_embedding(model, data):
    prompts = [model.prompt(one.first(1)) for one in open_conversations(data)]
    with torch.no_grad():
        assert torch.allclose(model.last_states(prompts)[2], model.last_states(prompts[2:])[0], atol=1e-5)


def test_another_picture_changes_the_loss(model, data, tmp_path):
    one = open_conversations(data)[0]
    Image.effect_noise((40, 40), 90).convert("RGB").save(tmp_path / "b.png")
    other = type(one)(one.name, one.turns, (tmp_path / "b.png",))
    with torch.no_grad():
        both = model.answer_loss([model.encode(each, 512, cut=False) for each in (one, other)])
    assert both[0] != both[1]


def test_a_conversation_that_is_too_long_is_named_or_cut(model, data):
    one = open_conversations(data)[1]
    with pytest.raises(
        StudioError, match=r"Conversation 'two' has \d+ tokens, more than max_tokens 20; raise"
    ):
        model.encode(one, 20, cut=False)
    assert len(model.encode(one, 30, cut=True).labels) == 30
    with pytest.raises(StudioError, match="would leave no answer"):
        model.encode(one, 6, cut=True)


def test_only_the_named_parts_train(data):
    trainer, groups = started(data, adapter=LORA, trains=("language",))
    network = trainer.task.model.network
    moving = {name for name, p in network.named_parameters() if p.requires_grad}
    assert moving == set(groups[0].parameters())
    assert all("language_model" in name and "lora" in name for name in moving)


def test_everything_can_train_at_rates_of_its_own(data):
    trainer, groups = started(data, adapter=Full(), trains=("vision", "projector", "language"))
    assert [(group.name, group.lr_scale) for group in groups] == [
        ("language", 1.0), ("head", 1.0), ("vision", 0.2), ("projector", 1.0)
    ]  # fmt: skip
    trained = sum(p.numel() for group in groups for p in group.parameters().values())
    assert trained == sum(p.numel() for p in trainer.task.model.network.parameters())


def test_an_export_is_a_model_of_transformers_with_the_adapter_merged(data, tmp_path):
    trainer, groups = started(data, adapter=LORA)
    with torch.no_grad():
        for name, value in groups[0].parameters().items():
            if "lora_B" in name:
                value.fill_(0.05)
    trainer.export(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    prompt = trainer.task.model.prompt(open_conversations(data)[0].first(1))
    with torch.no_grad():
        own = trainer.task.model.network(**prompt).logits
        assert torch.allclose(again(**prompt).logits, own, atol=1e-5)
    assert AutoProcessor.from_pretrained(tmp_path / "model").chat_template
    assert load_vlm(str(tmp_path / "model")).answer([open_conversations(data)[2]], 4) is not None


def test_previews_answer_the_first_questions_or_the_persons_own(data):
    trainer, _ = started(data, preview_tokens=3)
    assert trainer.prompts() == ["Color?", "Color?", "Hi"]
    request = Request(prompts=["How big?"])
    assert trainer.task.asked(request)[0].turns[0].text == "<image>How big?"
    assert len(trainer.sample(Request(prompts=list(trainer.prompts())), Rng.single(0, 0, 1)).texts) == 3


def test_a_model_that_is_not_there_is_refused():
    with pytest.raises(StudioError, match="'nobody/nothing' cannot be loaded"):
        load_vlm("nobody/nothing")
    with pytest.raises(StudioError, match="tiny models are: tiny:llava"):
        load_vlm("tiny:other")

"""How chat models are spoken to, on the published files: what is read, what of it is learned, and how long it is."""

import functools
import json

import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor

from studio.chat.lengths import _chosen, learned, lengths, marked
from studio.chat.model import IGNORED, load_reader, load_vlm
from studio.chat.pictures import limit
from studio.console import Console
from studio.data.conversations import open_conversations
from studio.errors import StudioError
from tests.chat.published_chats import NAMES, chat_files, there

PUBLISHED = [
    pytest.param(title, marks=pytest.mark.skipif(not there(title), reason="no published files"))
    for title in NAMES
]
EXPECTED = {
    "Qwen2-VL": ("assistant\n⟦A fox.<|im_end|>⟧\n", 99),
    "Qwen2.5-VL": ("assistant\n⟦A fox.<|im_end|>⟧\n", 99),
    "Qwen3-VL": ("assistant\n⟦A fox.<|im_end|>⟧\n", 80),
    "SmolVLM2": ("Assistant:⟦ A fox.<end_of_utterance>⟧\n", 860),
    "Idefics3": ("Assistant:⟦ A fox.<end_of_utterance>⟧\n", 2304),
    "PaliGemma 2": ("<bos>What is this?\n⟦A fox.<eos>⟧", 256),
    "Gemma 3": ("model\n⟦A fox.<end_of_turn>⟧\n", 256),
    "InternVL 3": ("assistant\n⟦A fox.<|im_end|>⟧\n", 3328),
    "LLaVA-1.5": ("ASSISTANT:⟦ A fox.</s>⟧", 576),
    "LLaVA-OneVision": ("assistant\n⟦A fox.<|im_end|>⟧", 1317),
}
"""How a conversation ends, what is learned in brackets, and the tokens of a picture of 320 x 240."""
SMALLEST = {"Qwen2-VL": 100_352, "Qwen3-VL": 65_536, "SmolVLM2": 262_144, "Idefics3": 132_496, "InternVL 3": 200_704,
            "LLaVA-OneVision": 147_456}  # fmt: skip


def said(*texts):
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    """One question, two questions, and none about a picture."""
    folder = tmp_path_factory.mktemp("chats")
    Image.effect_noise((320, 240), 90).convert("RGB").save(folder / "a.png")
    items = [
        {"id": "one", "image": "a.png", "conversations": said("<image>\nWhat is this?", "A fox. ")},
        {"id": "two", "image": "a.png", "conversations": said("<image>\nWhat?", "A fox.", "Sure?", "Yes.")},
        {"id": "bare", "conversations": said("Hi", "Hello.")},
    ]
    (folder / "chats.json").write_text(json.dumps(items))
    return open_conversations(folder / "chats.json")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Readers by title, each made once."""
    return functools.cache(
        lambda title: load_reader(str(chat_files(title, tmp_path_factory.mktemp("model"))))
    )


@pytest.mark.parametrize("title", PUBLISHED)
def test_an_answer_and_what_ends_it_are_learned_and_the_picture_is_there(title, reader, chats):
    one = reader(title)
    whole = one.speech.whole(chats[0])
    text = marked(one.processor.tokenizer, one.config.image_token_id, whole)
    ending, tokens = EXPECTED[title]
    assert text.endswith(ending)
    assert text.count("⟦") == 1
    assert f"[picture: {tokens:,} tokens]" in text
    first = whole.inputs["input_ids"][0].tolist()
    assert first[0] != first[1] or title == "PaliGemma 2", "the first token is doubled"
    assert max(first) < one.config.get_text_config().vocab_size


@pytest.mark.parametrize("title", PUBLISHED)
def test_what_is_learned_follows_what_the_model_is_asked(title, reader, chats):
    one = reader(title)
    for chat in (chats[0], chats[2], *([] if title == "PaliGemma 2" else [chats[1]])):
        whole, asked = one.speech.whole(chat), one.speech.asked(chat.first(len(chat.turns) - 1))
        places = whole.learned.nonzero()[:, 0]
        last = next(n for n in reversed(places.tolist()) if not whole.learned[n - 1])
        assert torch.equal(whole.inputs["input_ids"][0, :last], asked["input_ids"][0])


@pytest.mark.parametrize("title", [each for each in PUBLISHED if each.values[0] != "PaliGemma 2"])
def test_every_answer_of_a_conversation_is_learned_with_its_end(title, reader, chats):
    one = reader(title)
    text = marked(one.processor.tokenizer, one.config.image_token_id, one.speech.whole(chats[1]))
    parts = [part.partition("⟧")[0].strip() for part in text.split("⟦")[1:]]
    assert parts == [f"A fox.{one.speech.ends}", f"Yes.{one.speech.ends}"]


@pytest.mark.parametrize("title", [each for each in PUBLISHED if each.values[0] in SMALLEST])
def test_the_most_pixels_of_a_picture_can_be_set_and_are_kept(title, tmp_path):
    folder = chat_files(title, tmp_path / "model")
    photo, config = Image.new("RGB", (1920, 1080)), AutoConfig.from_pretrained(folder)
    pictures = AutoImageProcessor.from_pretrained(folder)
    usual = pictures(photo, return_tensors="pt", **_tiles(title))["pixel_values"].numel()
    limit(pictures, config, SMALLEST[title])
    assert pictures(photo, return_tensors="pt", **_tiles(title))["pixel_values"].numel() < usual / 3
    assert getattr(config, "image_grid_pinpoints", None) in (None, [[384, 384]])
    pictures.save_pretrained(tmp_path / "saved")
    again = AutoImageProcessor.from_pretrained(tmp_path / "saved")
    assert (again.size, again.to_dict().get("max_patches")) == (
        pictures.size,
        pictures.to_dict().get("max_patches"),
    )
    with pytest.raises(StudioError, match="less than the smallest picture of this model"):
        limit(pictures, config, 100)


def _tiles(title):
    """What InternVL's processor tells its picture processor."""
    return {"crop_to_patches": True} if title == "InternVL 3" else {}


@pytest.mark.skipif(not there("Qwen2.5-VL"), reason="no published files")
def test_a_photograph_is_not_refused(reader, tmp_path):
    Image.new("RGB", (1920, 1080)).save(tmp_path / "a.png")
    (tmp_path / "x.json").write_text(
        json.dumps([{"image": "a.png", "conversations": said("<image>\nWhat?", "A fox.")}])
    )
    one = reader("Qwen2.5-VL")
    found = lengths(one.speech, one.config.image_token_id, open_conversations(tmp_path / "x.json"))
    assert 2691 < found.most < one.config.get_text_config().max_position_embeddings
    assert found.told().startswith("tokens of a conversation: 2,7")


@pytest.mark.skipif(not there("PaliGemma 2"), reason="no published files")
def test_a_model_of_one_question_refuses_two(reader, chats):
    with pytest.raises(
        StudioError, match="answers one question, and conversation 'two' has turns of user, assistant, user"
    ):
        reader("PaliGemma 2").speech.whole(chats[1])


@pytest.mark.skipif(not there("LLaVA-1.5"), reason="no published files")
def test_a_model_without_a_template_is_refused_and_can_be_given_one(chats, tmp_path):
    folder = chat_files("LLaVA-1.5", tmp_path / "model")
    own = json.loads((folder / "chat_template.json").read_text())["chat_template"]
    (folder / "chat_template.json").unlink()
    with pytest.raises(StudioError, match="no chat template, and takes no prefix and suffix"):
        load_reader(str(folder))
    (tmp_path / "own.jinja").write_text(own)
    one = load_reader(str(folder), template=str(tmp_path / "own.jinja"))
    assert one.speech.ends == "</s>"
    (tmp_path / "own.jinja").write_text("{% for m in messages %}{{ m['role'] }}{% endfor %}")
    with pytest.raises(StudioError, match="leaves out what is said"):
        load_reader(str(folder), template=str(tmp_path / "own.jinja"))


def test_that_an_end_token_is_written_is_said(chats, tmp_path):
    model = load_vlm("tiny:llava")
    assert not model.speech.notes
    (tmp_path / "own.jinja").write_text(model.processor.chat_template.replace("</s>", " "))
    other = load_vlm("tiny:llava", template=str(tmp_path / "own.jinja"))
    assert other.speech.notes[0].endswith(
        "ends an answer with nothing: </s> is written there, so that it learns to stop"
    )
    labels = other.encode(chats[1]).labels
    assert other.processor.tokenizer.decode(labels[labels != IGNORED]) == "A fox.</s>Yes.</s>"


def test_the_command_shows_what_is_learned(chats, capsys):
    from studio.commands import data

    data.check([str(chats[0].pictures[0].with_name("chats.json")), "--model", "tiny:llava"], Console())
    told = capsys.readouterr().out
    assert "<|user|>[picture: 4 tokens]What is this?</s><|assistant|>⟦A fox.</s>⟧" in told
    assert "the longest is 'two'" in told
    assert list(learned(chats[2:], "tiny:llava"))[-1].endswith("⟦Hello.</s>⟧")


def test_the_longest_texts_are_among_those_measured(chats):
    many = [chats[2]] * 100 + [chats[1]] + [chats[2]] * 100
    assert chats[1] in _chosen(many)
    assert len(_chosen(many)) < 40

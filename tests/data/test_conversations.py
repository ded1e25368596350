"""Conversations in sharegpt form: what is read, what is refused and how it is said."""

import json

import pytest
from PIL import Image

from studio.commands import data
from studio.console import Console
from studio.data.conversations import check, first_questions, open_conversations
from studio.errors import StudioError

ASK, SAY = {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A ball."}


def write(folder, *items, name="chats.json"):
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    text = "\n".join(json.dumps(item) for item in items) if name.endswith("l") else json.dumps(list(items))
    (folder / name).write_text(text)
    return str(folder / name)


def chat(*turns, image="a.png"):
    return {"id": "7", "image": image, "conversations": list(turns)}


@pytest.mark.parametrize("name", ["chats.json", "chats.jsonl"])
def test_a_file_gives_turns_and_pictures(tmp_path, name):
    (found,) = open_conversations(write(tmp_path, chat(ASK, SAY), name=name))
    assert [turn.role for turn in found.turns] == ["user", "assistant"]
    assert found.pictures == (tmp_path / "a.png",)
    assert found.messages()[0]["content"] == [{"type": "image"}, {"type": "text", "text": "What is it?"}]


def test_a_system_turn_and_several_answers_are_taken(tmp_path):
    system, more = {"from": "system", "value": "Be brief."}, {"from": "human", "value": "Sure?"}
    (found,) = open_conversations(write(tmp_path, chat(system, ASK, SAY, more, SAY)))
    assert found.answers == ["A ball.", "A ball."]
    (asked,) = first_questions([found], 3)
    assert [turn.role for turn in asked.turns] == ["system", "user"]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (chat(ASK, SAY, image="b.png"), "names the picture .*b.png, which does not exist"),
        (chat(SAY, ASK), "human and gpt take turns, human begins and gpt ends"),
        (chat(ASK), "human begins and gpt ends"),
        (chat({"from": "bot", "value": "hi"}, SAY), "a turn from 'bot'; turns are from human, gpt or system"),
        (chat(ASK, {"from": "gpt", "value": " "}), "an empty turn from 'gpt'"),
        (chat(ASK, SAY, image=["a.png", "a.png"]), "says <image> 1 times but names 2 pictures"),
        ({"id": "7"}, "has no list `conversations`"),
    ],
)
def test_a_conversation_that_cannot_be_used_is_named(tmp_path, item, said):
    with pytest.raises(StudioError, match=rf"Conversation '7' .*{said}"):
        open_conversations(write(tmp_path, item))


def test_a_picture_that_is_none_is_refused(tmp_path):
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(StudioError, match="is not a picture"):
        open_conversations(write(tmp_path, chat(ASK, SAY, image="b.png")))


@pytest.mark.parametrize(("text", "said"), [("{", "is not JSON"), ("[]", "holds no list of conversations")])
def test_a_file_of_something_else_is_refused(tmp_path, text, said):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(StudioError, match=said):
        open_conversations(tmp_path / "x.json")


def test_a_check_counts_and_lists_every_problem(tmp_path):
    report = check(write(tmp_path, chat(ASK, SAY), chat(ASK), chat(SAY)))
    assert not report.can_train
    assert report.lines()[-1] == "2 of 3 conversations cannot be used; mend or remove them."
    assert "1 conversations, 1 answers of 2 to 2 words" in report.lines()[0]


def test_the_command_lists_problems_and_ends_with_the_verdict(tmp_path, capsys):
    file = write(tmp_path, chat(ASK, SAY), chat(ASK))
    with pytest.raises(StudioError, match="1 of 2 conversations cannot be used"):
        data.check([file], Console())
    assert "human begins and gpt ends" in capsys.readouterr().out

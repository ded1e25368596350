"""The model card says what a reader needs, and refuses politely to be sent nowhere."""

import pytest
import yaml
from PIL import Image

from studio.adapters.card import push_to_hub, write_card
from studio.adapters.config import Export
from studio.adapters.metadata import Facts
from studio.errors import StudioError


@pytest.fixture
def folder(tmp_path):
    target = tmp_path / "rex" / "export"
    target.mkdir(parents=True)
    for name in ("pytorch_lora_weights.safetensors", "rex.safetensors"):
        (target / name).write_bytes(b"")
    Image.new("RGB", (8, 8)).save(tmp_path / "dog.png")
    return target


@pytest.fixture
def card(folder, tmp_path) -> str:
    facts = Facts(
        base_model="acme/base", steps=400, scores={"subject": 0.71234}, samples=[tmp_path / "dog.png"]
    )
    return write_card(folder, "sd1", Export(name="rex", trigger="sks dog", license="mit"), facts).read_text()


def test_card_head_is_machine_readable(card):
    head = yaml.safe_load(card.split("---")[1])
    assert (head["base_model"], head["instance_prompt"], head["license"]) == ("acme/base", "sks dog", "mit")
    assert head["widget"] == [{"text": "sks dog", "output": {"url": "samples/dog.png"}}]


def test_card_shows_scores_pictures_and_files(card, folder):
    assert "| subject | 0.7123 |" in card
    assert "![sks dog](samples/dog.png)" in card
    assert "`rex.safetensors`: A1111, Forge, ComfyUI" in card
    assert (folder / "samples" / "dog.png").is_file()


def test_a_folder_without_a_card_is_not_sent(folder):
    with pytest.raises(StudioError, match="has no model card"):
        push_to_hub(folder, "acme/rex")


@pytest.mark.usefixtures("card")
def test_an_impossible_name_is_the_persons_mistake(folder):
    with pytest.raises(StudioError, match=r"could not be sent to 'a//b' .*hf auth login"):
        push_to_hub(folder, "a//b")

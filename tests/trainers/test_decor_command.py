"""`studio decor`: components as table, plot and pictures; suggestions from captions; a projector beside an adapter."""

import pytest
from PIL import Image

from studio.console import Console
from studio.errors import StudioError
from trainers.decor.command import components, save, suggest
from trainers.decor.projector import load_projector

MODEL = ["--model", "tiny:sd1"]


def test_components_are_printed_plotted_and_drawn(tmp_path, capsys):
    flags = ["--prompt", "a dog on grass", "--take", "0", "1", "--num-images", "2", "--steps", "2"]
    components([*MODEL, *flags, "--output", str(tmp_path)], Console())
    told = capsys.readouterr().out
    assert "singular value" in told
    assert "<begin>" in told or "dog" in told
    with Image.open(tmp_path / "components.png") as figure:
        assert figure.width >= 600
    with Image.open(tmp_path / "regenerated.png") as sheet:
        assert sheet.size == (128, 192)


def test_words_of_most_captions_are_suggested(tmp_path, capsys):
    for index, caption in enumerate(("a sks dog on grass", "a sks dog on green grass", "a sks dog in grass")):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(caption)
    suggest(["--data", str(tmp_path), "--prompt", "a sks dog on the moon"], Console())
    assert capsys.readouterr().out.strip() == "grass"


def test_a_folder_without_captions_is_refused(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    with pytest.raises(StudioError, match="has no captions"):
        suggest(["--data", str(tmp_path), "--prompt", "a dog"], Console())


def test_a_projector_is_written_where_it_is_asked_for(tmp_path):
    path = tmp_path / "run" / "decor.safetensors"
    save([*MODEL, "--edit.undesired", "grass", "sand", "--output", str(path)], Console())
    found = load_projector(path)
    assert found.undesired == ("grass", "sand")
    assert len(found.blocks) == 1

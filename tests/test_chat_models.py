"""The cheapest cells of `python -m tests.chat_models`, and that its page is that of its cells."""

import pytest

from studio.backend.core import Backend
from studio.chat.model import load_vlm
from studio.settings.run import Hardware
from tests.chat.published_chats import NAMES, chat_model, there
from tests.chat_models import METHODS, PAGE, TEXT, WAYS, read, render, tried


def test_networks_with_kernels_of_five_axes_can_be_placed(tmp_path):
    if not there("Qwen2-VL"):
        pytest.skip("the published files are not here")
    network = load_vlm(str(chat_model("Qwen2-VL", tmp_path / "model"))).network
    assert any(value.ndim == 5 for value in network.parameters())
    assert Backend(Hardware(device="cpu")).place(network) is network


def test_the_default_chat_model_trains_at_the_settings_it_gets_and_its_export_reads_back(tmp_path):
    title = "LLaVA-OneVision"
    if not there(title):
        pytest.skip("the published files are not here")
    (tmp_path / "run").mkdir()
    first, _, last = tried(chat_model(title, tmp_path / "model"), "vlm", "lora", tmp_path / "run").partition(
        " to "
    )
    assert float(last) < float(first)


def test_the_page_is_made_of_the_cells():
    assert PAGE.read_text(encoding="utf-8") == render(read())


def test_every_model_is_in_the_table_and_no_cell_is_a_fault():
    cells = read()
    wanted = {TEXT, *(f"{method}, {way}" for method in METHODS for way in WAYS)}
    assert {title: set(found) for title, found in cells.items()} == dict.fromkeys(NAMES, wanted)
    assert not [said for found in cells.values() for said in found.values() if said.startswith("FAULT")]
    assert all("⟦A fox." in found[TEXT] or "⟦ A fox." in found[TEXT] for found in cells.values())

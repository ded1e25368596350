"""The chat models that people have: `python -m tests.chat_models [NAME ...]` writes `docs/chat-models.md`.

Each is built from its published configuration with thin networks (`tests/chat/published_chats.py`), trained by the command's own
settings on two conversations, exported and read back. Names of models, methods or ways limit what is run anew; the other cells
are kept in `chat_models.json`. The published files lie beside the project; without them nothing can be run anew.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from studio.catalog.run import Run
from studio.chat.lengths import learned
from studio.chat.model import load_vlm
from studio.data.conversations import open_conversations
from studio.flags import flags
from studio.training.train import train
from tests import tree
from tests.chat.published_chats import NAMES, chat_model
from tests.on_families import FAULT, command, outcome

FILE = Path(__file__).with_name("chat_models.json")
PAGE = tree.ROOT / "docs" / "chat-models.md"
METHODS, WAYS = ("vlm", "cafe"), ("lora", "whole")
STEPS = 8
TEXT = "text"
"""Stands, among a model's cells, for what is learned, as text."""
Cells = dict[str, dict[str, str]]
"""Model to method and way, or `text`, to what came of it."""
HEAD = f"""# Chat models

Made by `python -m tests.chat_models`. Each model was built from its published configuration, chat template, tokenizer and picture
processor, with thin networks of random weights (two layers, 32 wide); no published weights were loaded. PaliGemma 2 and SmolVLM2 have
a made vocabulary of one token a byte, with their special tokens at their own ids. Each cell trained {STEPS} steps on two conversations
about pictures of 320 x 240, at the settings that `studio train METHOD --model NAME` takes by itself but for the rate (0.003, no
warm-up: the weights are random), steps and batch (2); was exported; and the export was read back, where the loss of the answers was below that of the first step.

A cell says how the loss fell, from the first step to the last.

"""
TOLD = """
## What is learned

Of `{"from": "human", "value": "<image>\\nWhat is this?"}, {"from": "gpt", "value": "A fox."}` the part in double brackets, as
`studio data check --model NAME conversations.json` shows it for any file:

"""


def read() -> Cells:
    """The cells as they were last found."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def data(folder: Path) -> str:
    """Two conversations about pictures of different shape."""
    noise, items = np.random.default_rng(0), []
    for name, answer, size in (
        ("a", "A fox.", (240, 320, 3)),
        ("b", "Two cups, one of them red.", (320, 240, 3)),
    ):
        Image.fromarray(noise.integers(0, 255, size, dtype=np.uint8)).save(folder / f"{name}.png")
        said = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": answer}]
        items.append({"id": name, "image": f"{name}.png", "conversations": said})
    (folder / "chats.json").write_text(json.dumps(items), encoding="utf-8")
    return str(folder / "chats.json")


def run_of(model: Path, method: str, way: str, folder: Path) -> Run:
    """A run as the command makes it."""
    given = ["--data", data(folder), "--model", str(model), "--output", str(folder), "--name", "one", "--optim.lr", "0.003",
             "--optim.warmup", "0", "--loop.steps", str(STEPS), "--loop.batch-size", "2", "--loop.log-every", "1",
             "--hardware.device", "cpu", "--preview-tokens", "2"]  # fmt: skip
    return flags.started(method, [*given, *(["--adapter", "full"] if way == "whole" else [])])[0]


def tried(model: Path, method: str, way: str, folder: Path) -> str:
    """What came of a cell: the first and the last loss."""
    run = run_of(model, method, way, folder)
    steps = [event for event in train(run) if event["event"] == "step"]
    losses = [event["loss"] for event in steps]
    assert losses[-1] < losses[0], f"the loss went from {losses[0]:.2f} to {losses[-1]:.2f}"
    _reads_back(folder / "one", run, steps[0].get("loss_lm", losses[0]))
    return f"{losses[0]:.2f} to {losses[-1]:.2f}"


def _reads_back(run_folder: Path, run: Run, first: float) -> None:
    """The export answers and holds what was learned: the loss of answers is below that of the first step."""
    method: Any = run.method
    again = load_vlm(str(run_folder / "export" / "model"))
    found = open_conversations(method.data)
    with torch.no_grad():
        loss = again.answer_loss([again.encode(one) for one in found]).mean().item()
    assert loss < first, f"the export's loss is {loss:.2f}, that of the untrained model {first:.2f}"
    assert len(again.answer([found[0].first(1)], 2)) == 1


def text_of(model: Path, folder: Path) -> str:
    """What is learned of the first conversation."""
    lines = list(learned(open_conversations(data(folder))[:1], str(model)))
    return lines[-1]


def wanted(names: list[str]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Models and their cells; all, or those in which every given name occurs."""
    for title in NAMES:
        cells = [(method, way) for method in METHODS for way in WAYS if set(names) <= {title, method, way}]
        if cells:
            yield title, cells


def render(cells: Cells) -> str:
    """The page."""
    columns = [f"{method}, {way}" for method in METHODS for way in WAYS]
    lines = [_row("model", *columns), _row(*["---"] * (len(columns) + 1))]
    lines += [_row(title, *(cells.get(title, {}).get(each, "") for each in columns)) for title in NAMES]
    texts = [
        f"**{title}**\n\n```text\n{cells[title][TEXT].strip()}\n```\n"
        for title in NAMES
        if TEXT in cells.get(title, {})
    ]
    return HEAD + "\n".join(lines) + "\n" + TOLD + "\n".join(texts)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main(names: list[str]) -> int:
    """Try what is wanted, and write file and page."""
    faults = 0
    for title, ways in wanted(names):
        with tempfile.TemporaryDirectory() as root:
            model = chat_model(title, Path(root) / "model")
            (Path(root) / "text").mkdir()
            found = {TEXT: outcome(lambda at=(model, Path(root) / "text"): text_of(*at))}
            for method, way in ways:
                folder = Path(root) / f"{method}-{way}"
                folder.mkdir()
                found[f"{method}, {way}"] = outcome(lambda at=(model, method, way, folder): tried(*at))
                print(f"{title} {method} {way}: {found[f'{method}, {way}']}", flush=True)
        faults += sum(said.startswith(FAULT) for said in found.values())
        cells = read()
        cells[title] = cells.get(title, {}) | found
        FILE.write_text(json.dumps(cells, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(render(read()), encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    command(main)

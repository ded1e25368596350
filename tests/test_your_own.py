"""The page on things of one's own: its code runs as it stands there."""

import re
from pathlib import Path

import pytest

import studio
from studio import assets
from studio.metrics.config import Judges, NoText

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "your-own.md").read_text(encoding="utf-8")
TINY = {"model": "tiny:sd1", "prior": "no-prior", "token": "sks", "trackers": (), "preview": {"every": 0}}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        (name,) = re.findall(r"`(\w+\.py)`", code.splitlines()[0])
        (tmp_path / name).write_text(code)


def test_the_edit_changes_what_is_drawn_and_is_in_the_recipe():
    asked = {"model": "tiny:sd1", "prompt": "a red fox", "steps": 2}
    plain, calm = (
        studio.sample(**asked),
        studio.sample(**asked, edits='{"kind": "my_edit.py", "strength": 0.3}'),
    )
    assert plain.images[0].tobytes() != calm.images[0].tobytes()
    assert studio.sample(**asked, edits="my_edit.py").request.edits == ("my_edit.py",)


def test_the_adapter_trains_and_the_judge_has_a_row():
    data = str(assets.path("samples/unicorn"))
    adapter = {"kind": "custom", "path": "mine.py:few", "options": {"rank": 4}}
    run = studio.Run.of(
        "dreambooth",
        name="one",
        data=data,
        adapter=adapter,
        loop={"steps": 1, "batch_size": 1},
        text_encoder=False,
        **TINY,
    )
    assert list(studio.train(run))[-1]["event"] == "done"
    judges = Judges(text=NoText(), custom=("mine.py:crisp",))
    found = studio.evaluate("subject", artifact="runs/one", data=data, num_images=1, steps=1, judges=judges)
    assert any("crisp" in row.name for row in found.rows)

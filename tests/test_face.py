"""The public face: `import studio`, nine names, each doing what its command does."""

import dataclasses
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import studio
from studio import assets, cli
from studio.backend.shard import Shard
from studio.catalog import methods
from studio.contracts.batch import Batch
from studio.errors import StudioError
from studio.flags import flags
from studio.records.runs import RunFolder
from tests.cases import CASES, photos
from trainers.dreambooth import DreamBoothTrainer

SIGNATURES = Path(__file__).with_name("face.txt")
TINY = {"model": "tiny:sd1", "prior": "no-prior", "adapter": {"rank": 2}, "token": "sks"}
SHORT = {"loop": {"steps": 2, "batch_size": 2, "log_every": 1}, "preview": {"every": 0}, "trackers": ()}


def signatures() -> str:
    """Every public name with its signature, one a line."""
    found = {name: getattr(studio, name) for name in studio.__all__ if name != "Run"}
    found["Run.of"] = studio.Run.of
    lines = "".join(f"{name}{inspect.signature(function)}\n" for name, function in found.items())
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", lines)


def test_public_names_and_signatures_change_only_on_purpose():
    assert signatures() == SIGNATURES.read_text(encoding="utf-8"), (
        "run `python -m tests.test_face`, and say it in the changelog"
    )


def test_importing_the_face_brings_no_library():
    code = "import sys, studio; print([m for m in sys.modules if m in ('torch', 'pydantic', 'numpy', 'diffusers')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.timing
def test_importing_the_face_takes_under_50_ms():
    code = "import time; start = time.perf_counter(); import studio; print(time.perf_counter() - start)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    print(f"import studio: {1000 * sorted(times)[2]:.1f} ms")
    assert sorted(times)[2] < 0.05


def test_every_public_name_is_listed_and_there():
    assert set(dir(studio)) == set(studio.__all__)
    assert all(callable(getattr(studio, name)) for name in studio.__all__)
    with pytest.raises(AttributeError, match="trian"):
        _ = studio.trian


@pytest.mark.parametrize("method", [name for name in studio.list_methods() if methods.card(name).trainer])
def test_a_run_by_name_is_the_run_of_the_command(method: str, tmp_path: Path):
    wanted = {"adversarial": {}, "vit": {}}.get(method, {})
    needed = [f for f, p in methods.card(method).config.__dataclass_fields__.items() if _is_required(p)]
    given = dict.fromkeys(needed, "x") | wanted
    run, _ = flags.parse_run(method, [part for name, value in given.items() for part in (f"--{name}", value)])
    assert studio.Run.of(method, **given) == run


def _is_required(field: object) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def test_nested_settings_are_changes_and_classes_hold_whole():
    base = {"data": "photos", "class_word": "dog"}
    assert studio.Run.of("dreambooth", **base, loop={"steps": 7}).loop.batch_size == 8  # the preset's
    assert studio.Run.of("dreambooth", **base, adapter={"rank": 3}).method.adapter.layers == "blocks"
    assert studio.Run.of("dreambooth", **base, adapter="oft").method.adapter.block_size == 32
    assert studio.Run.of("dreambooth", **base, model="tiny:sdxl", preset="full").optim.lr == 5e-6
    with pytest.raises(StudioError, match="did you mean 'class_word'"):
        studio.Run.of("dreambooth", data="photos", class_wrd="dog")


def test_the_readme_example_writes_the_config_of_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    run = studio.Run.of(
        "dreambooth", data=data, class_word="dog", name="one", prior={"num_images": 1, "steps": 1}
    )
    events = studio.train(run)
    assert next(events)["event"] == "prepare"
    ours = json.loads(Path("runs/one/config.json").read_text())
    events.close()
    assert not Path("runs/one").exists()  # nothing was trained, so nothing is kept
    flagged = ["--data", data, "--class-word", "dog", "--prior.num-images", "1", "--prior.steps", "1"]
    assert (
        cli.run(
            ["train", "dreambooth", *flagged, "--name", "one", "--loop.steps", "1", "--preview.every", "0"]
        )
        == 0
    )
    theirs = json.loads(Path("runs/one/config.json").read_text())
    theirs["loop"]["steps"], theirs["preview"]["every"] = ours["loop"]["steps"], ours["preview"]["every"]
    assert ours == theirs


def test_a_trained_run_is_sampled_exported_and_turned_into_a_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    data = str(assets.path("samples/unicorn"))
    run = studio.Run.of("dreambooth", data=data, name="dog", optim={"lr": 1e-2}, **TINY, **SHORT)
    assert [event["event"] for event in studio.train(run)][-1] == "done"
    drawn = studio.sample(artifact="dog", prompt="a sks dog", steps=2, scheduler="ddim", guidance=1.0)
    assert [path.exists() for path in drawn.paths] == [True]
    pipe = studio.pipeline("dog")
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        changed = pipe(
            "a sks dog", num_inference_steps=2, guidance_scale=1.0, generator=torch.Generator().manual_seed(0)
        )
        plain = studio.pipeline("", model="tiny:sd1")
        plain.set_progress_bar_config(disable=True)
        base = plain(
            "a sks dog", num_inference_steps=2, guidance_scale=1.0, generator=torch.Generator().manual_seed(0)
        )
    assert np.abs(np.asarray(changed.images[0], int) - np.asarray(base.images[0], int)).max() > 0
    files = studio.export("dog", formats=("kohya",))
    assert [file.name for file in files] == ["dog.safetensors"]
    with pytest.raises(StudioError, match="formats"):
        studio.export("dog", formats=("koya",))


class Two:
    """A source of a person's own: two gray pictures."""

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        while True:
            rows = shard.stop - shard.start
            yield {
                "images": torch.zeros(rows, 3, 64, 64),
                "captions": ["a sks dog"] * rows,
                "rows": torch.arange(rows),
            }

    def __len__(self) -> int:
        return 2


class Doubled(DreamBoothTrainer):
    """A trainer of a person's own."""

    def loss(self, batch, rng):  # type: ignore[override]
        found = super().loss(batch, rng)
        return type(found)(2 * found.total, {"doubled": found.total})


def test_a_trainer_and_data_of_ones_own_train_resume_and_are_asked_for(tmp_path: Path):
    run = studio.Run.of(
        "dreambooth",
        data=str(assets.path("samples/unicorn")),
        output=str(tmp_path),
        name="own",
        **TINY,
        **SHORT,
    )
    events = list(studio.train(run, trainer=Doubled, source=Two()))
    start = next(event for event in events if event["event"] == "start")
    assert start["own_trainer"].endswith("test_face:Doubled")
    assert start["own_source"].endswith("test_face:Two")
    assert all("doubled" in event for event in events if event["event"] == "step")
    more = {"loop": {"steps": 3}}
    with pytest.raises(StudioError, match=r"begun from Python with .*Doubled.*trainer="):
        list(studio.resume(tmp_path / "own", more))
    with pytest.raises(StudioError, match=r"source="):
        list(studio.resume(tmp_path / "own", more, trainer=Doubled))
    assert list(studio.resume(tmp_path / "own", more, trainer=Doubled, source=Two()))[-1]["event"] == "done"


def test_epochs_are_passes_over_the_data_repeats_counted(tmp_path: Path):
    data = tmp_path / "3_sks dog"
    CASES["dreambooth"](tmp_path / "made")  # three noise pictures
    (tmp_path / "made").rename(data)
    settings = {**SHORT, "loop": {"epochs": 2, "batch_size": 4, "log_every": 1}}
    run = studio.Run.of(
        "dreambooth", data=str(tmp_path), output=str(tmp_path / "runs"), name="e", **TINY, **settings
    )
    events = list(studio.train(run))
    assert events[-1]["step"] == 6  # 3 pictures x 3 repeats = 9 examples: 3 batches of 4 a pass, twice
    assert "length: 2 epochs, 6 steps" in next(e for e in events if e["event"] == "start")["facts"]
    written = json.loads((tmp_path / "runs/e/config.json").read_text())["loop"]
    assert (written["epochs"], written["steps"]) == (2, 6)
    with pytest.raises(StudioError, match="counts 2 epochs"):
        list(studio.resume(tmp_path / "runs/e", {"loop": {"steps": 9}}))
    assert list(studio.resume(tmp_path / "runs/e", {"loop": {"epochs": 3}}))[-1]["step"] == 9


def test_epochs_are_refused_where_a_method_makes_its_batches(tmp_path: Path):
    run = studio.Run(method=CASES["ddpo"](tmp_path), output=str(tmp_path / "runs"), name="one")
    run = dataclasses.replace(run, loop=dataclasses.replace(run.loop, epochs=1), trackers=())
    with pytest.raises(StudioError, match=r"loop\.epochs counts passes"):
        list(studio.train(run))
    assert not (tmp_path / "runs" / "one").exists()


def test_stopping_while_a_run_is_prepared_leaves_nothing(tmp_path: Path):
    data = str(assets.path("samples/unicorn"))
    prior = {"num_images": 2, "steps": 2, "folder": str(tmp_path / "priors")}
    settings = TINY | {"prior": prior}
    run = studio.Run.of("dreambooth", data=data, output=str(tmp_path / "runs"), name="s", **settings, **SHORT)
    events: list[dict[str, object]] = []
    for event in studio.train(run, stop=lambda: events[-1].get("what") == "class pictures"):
        events.append(event)  # noqa: PERF402  # looked at meanwhile
    assert [event["event"] for event in events[-2:]] == ["prepare", "stopped"]
    assert events[-2]["what"] == "class pictures"
    assert not RunFolder(tmp_path / "runs" / "s").path.exists()
    assert not list((tmp_path / "priors").iterdir())


def test_a_start_that_comes_to_nothing_leaves_a_run_as_it_was(tmp_path: Path):
    data = str(assets.path("samples/unicorn"))
    run = studio.Run.of("dreambooth", data=data, output=str(tmp_path), name="d", **TINY, **SHORT)
    list(studio.train(run))
    folder = RunFolder(tmp_path / "d")
    before = folder.events.read_bytes(), folder.config.read_bytes()
    more = {"loop": {"steps": 4}}
    events = studio.resume(folder.path, more)
    assert next(events)["event"] == "prepare"
    events.close()
    assert list(studio.resume(folder.path, more, stop=lambda: True))[-1]["event"] == "stopped"
    with pytest.raises(studio.StudioError, match="made with other settings"):
        list(studio.resume(folder.path, {"optim": {"lr": 3.0}}))
    assert (folder.events.read_bytes(), folder.config.read_bytes()) == before
    assert folder.status() == "done"
    assert list(studio.resume(folder.path, more))[-1]["step"] == 4
    assert not list(folder.read_events("prepare"))  # of starts that are over


class Nothing(Two):
    """A source without a batch."""

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        yield from ()


def test_data_without_a_batch_is_refused(tmp_path: Path):
    data = str(assets.path("samples/unicorn"))
    run = studio.Run.of("dreambooth", data=data, output=str(tmp_path), name="x", **TINY, **SHORT)
    with pytest.raises(studio.StudioError, match="gave no batch of 2"):
        list(studio.train(run, source=Nothing()))


def test_what_is_brought_along_and_cannot_work_is_one_sentence():
    code = """
from studio.catalog.run import Run
from studio.errors import StudioError
from studio.training.preparing import Own
for given in ({"source": [1, 2]}, {"trainer": int}, {"trainer": "DreamBooth"}):
    try:
        Own(**given).made(Run.of("vit"))
    except StudioError as error:
        print(error)
"""  # in a process of its own: here the types of arguments are checked before
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert [line.partition(";")[0] for line in said] == [
        "source was given as a list",
        "trainer was given as <class 'int'>",
        "trainer was given as 'DreamBooth'",
    ]


def test_a_saved_pipeline_draws_what_the_artifact_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from diffusers import DiffusionPipeline

    monkeypatch.chdir(tmp_path)
    data = str(assets.path("samples/unicorn"))
    run = studio.Run.of("dreambooth", data=data, name="dog", optim={"lr": 1e-2}, **TINY, **SHORT)
    list(studio.train(run))
    pipe = studio.pipeline("dog")
    pipe.save_pretrained("saved")
    again = DiffusionPipeline.from_pretrained("saved")
    asked = {"num_inference_steps": 2, "output_type": "np"}
    drawn = [
        p("a sks dog", generator=torch.Generator().manual_seed(0), **asked).images for p in (pipe, again)
    ]
    assert np.abs(drawn[0] - drawn[1]).max() < 1e-5


if __name__ == "__main__":
    SIGNATURES.write_text(signatures(), encoding="utf-8")

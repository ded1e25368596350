"""Things from outside: one's own rewards, attacks, judges, adapters, objectives and data, by a path, in a working folder."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.attacks.config import Attacks
from studio.backend.core import Backend
from studio.catalog import checks, outside
from studio.catalog.run import Run
from studio.data.config import Labelled
from studio.diffusion.config import Denoising
from studio.diffusion.objective import per_example
from studio.diffusion.process import Flow
from studio.errors import RunFailed, StudioError
from studio.evaluation import robustness, subject
from studio.flags import flags
from studio.metrics.build import Evidence, Jury
from studio.metrics.config import FeatureDiversity, Judges, NoText, SubjectEval
from studio.models import build
from studio.rewards.build import Terms
from studio.rewards.config import User
from studio.rl.advantages import PromptStatistics, advantages
from studio.sampling.infer import sample
from studio.settings import serial
from studio.settings.custom import Custom
from studio.settings.run import Loop, Optim
from studio.settings.sampling import SampleRequest
from studio.training.train import run_to_end
from studio.training.verify import verify_resume
from studio.vision.config import Robustness
from tests.cases import REINFORCED, photos
from tests.metrics.judges import picture
from tests.trainers.pictures import BACKEND, class_folders, trained_folder
from trainers.clip.config import Clip
from trainers.ddpo.config import Ddpo
from trainers.dreambooth.config import DreamBooth
from trainers.jedi.config import Jedi

MINE = '''
"""What a person writes."""
import torch
from peft import LoraConfig, PrefixTuningConfig

HALF = 0.5

def red(images, prompts, *, scale=1.0):
    return scale * images[:, 0].mean((1, 2))

class Green:
    def __init__(self, scale=1.0):
        self.scale = scale
    def __call__(self, images, prompts):
        return self.scale * images[:, 1].mean((1, 2))

def wide(images, prompts):
    return images.flatten(1)

def empty(images, prompts):
    return images.mean((1, 2, 3)) * float("nan")

def colors(images):
    assert images.shape[1:] == (3, 224, 224)
    return images.mean((2, 3)) + 0.1

def flat(images):
    return images.mean()

def spread(images):
    return images.std(0).mean()

def push(model, images, labels, *, eps, norm, seed, factor=1.0):
    images = images.requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    return images + factor * eps * torch.autograd.grad(loss, images)[0].sign()

def shrink(model, images, labels, *, eps, norm, seed):
    return images[:, :, ::2]

def few(module, rank=2):
    return LoraConfig(r=rank, lora_alpha=rank, target_modules=["to_q", "to_v"])

def pissa(module):
    return LoraConfig(r=2, target_modules=["to_q"], init_lora_weights="pissa")

def saves(module):
    return LoraConfig(r=2, target_modules=["to_q"], modules_to_save=["conv_in"])

def text(module):
    return "lora"

def square(u, power=2.0):
    return u ** power

def beyond(u):
    return 2 * u

def charbonnier(prediction, target, delta=0.1):
    return ((prediction - target) ** 2 + delta**2).sqrt()

def one_number(prediction, target):
    return ((prediction - target) ** 2).mean()

def ranks(rewards, prompts):
    return rewards.argsort().argsort().float() - (len(rewards) - 1) / 2

def lost(rewards, prompts):
    return rewards[:1]

class Slow(torch.optim.AdamW):
    pass

class Noise:
    def __init__(self, size, count=8, scale=1.0):
        self.size, self.count, self.scale = size, count, scale
    def __len__(self):
        return self.count
    def stream(self, seed, first, shard):
        step = first
        while True:
            draw = torch.Generator().manual_seed(1000 * seed + step)
            images = torch.rand(shard.total, 3, self.size, self.size, generator=draw) * 2 - 1
            captions = [f"noise {step} {row}" for row in range(shard.total)]
            rows = slice(shard.start, shard.stop)
            yield {"images": self.scale * images[rows], "captions": captions[rows]}
            step += 1
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("working")
    (made / "things_of_mine.py").write_text(MINE)
    return made


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))  # taken away again
    monkeypatch.chdir(folder)


def mine(name: str, **options: Any) -> Custom:
    return Custom(path=f"things_of_mine.py:{name}", options=options)


def short(method: object, folder: Path, name: str = "one", **values: Any) -> Run:
    loop = Loop(steps=2, batch_size=2, log_every=1)
    return Run(method=method, output=str(folder / "runs"), name=name, loop=loop, optim=Optim(lr=1e-3), hardware=BACKEND,
               **values)  # fmt: skip


# ---- paths


def test_a_file_and_a_module_in_the_working_folder_are_the_same_thing(folder: Path):
    named = (
        "things_of_mine:red",
        "things_of_mine.py:red",
        "./things_of_mine.py:red",
        f"{folder}/things_of_mine.py:red",
    )
    found = {outside.load(path, what="Reward", field="reward") for path in named}
    assert len(found) == 1
    assert found.pop().__module__ == "things_of_mine"


def test_a_file_elsewhere_has_one_module_under_a_stable_name(tmp_path: Path):
    file = tmp_path / "json.py"  # a name that Python has itself
    file.write_text("def red(images, prompts):\n    return images.mean((1, 2, 3))\n")
    found = outside.load(f"{file}:red", what="Reward", field="reward")
    assert sys.modules[found.__module__].__file__ == str(file)
    assert outside.load(f"{file}:red", what="Reward", field="reward") is found
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "things_of_mine",
            r"'things_of_mine' does not say where it is .*give `package.module:Name`, or `file.py:Name`",
        ),
        ("nothing_here:red", r"neither a module 'nothing_here' nor a file nothing_here.py in /"),
        ("torch.nothing:red", r"neither a module 'torch.nothing'"),
        ("nothing.py:red", r"there is no file '/.*nothing.py'"),
        (
            "broken_one.py:red",
            r"'broken_one.py' breaks .*\(NameError: name 'undefined' is not defined; broken_one.py, line 2\)",
        ),
        (
            "needs_more:red",
            r"'needs_more' breaks .*\(ModuleNotFoundError: No module named 'surely_absent'; needs_more.py",
        ),
        ("no_python.py:red", r"'no_python.py' breaks .*\(SyntaxError: .*no_python.py, line 1"),
        ("things_of_mine.py:rde", r"the module has no 'rde'; did you mean 'red'\?"),
        ("things_of_mine.py:HALF", r"is a float; name a function or a class"),
    ],
)
def test_a_wrong_path_is_one_sentence(folder: Path, path: str, said: str):
    (folder / "broken_one.py").write_text("red = 1\nundefined\n")
    (folder / "needs_more.py").write_text("import surely_absent\n")
    (folder / "no_python.py").write_text("def :\n")
    with pytest.raises(StudioError, match=said) as caught:
        outside.load(path, what="Reward", field="reward.function")
    assert caught.value.field == "reward.function"
    assert "\n" not in str(caught.value)


def test_code_in_the_folder_of_a_run_or_an_artifact_is_not_imported(folder: Path):
    (folder / "theirs" / "export").mkdir(parents=True)
    (folder / "theirs" / "config.json").write_text("{}")
    (folder / "theirs" / "export" / "evil.py").write_text("raise SystemExit('imported')")
    for path in (
        "theirs/export/evil.py:red",
        f"{folder}/theirs/export/evil.py:red",
        "theirs.export.evil:red",
    ):
        with pytest.raises(StudioError, match=r"lies in /.*theirs, the folder of a run or an artifact"):
            outside.load(path, what="Reward", field="reward")


def test_an_optimizer_of_ones_own_is_found_in_the_same_way(tmp_path: Path):
    run = short(Clip(model="tiny:clip", data=mine("Noise")), tmp_path)
    named = replace(run, optim=Optim(name="things_of_mine.py:Slow", lr=1e-3))
    assert run_to_end(named).status() == "done"
    with pytest.raises(StudioError, match=r"Optimizer 'things_of_mine:Slew': .* did you mean 'Slow'"):
        run_to_end(replace(run, name="two", optim=Optim(name="things_of_mine.Slew")))


def test_options_that_are_not_taken_are_told_before_a_call():
    with pytest.raises(
        StudioError, match=r"Reward .*:red' fails with the options \{'size': 2\} .*unexpected keyword"
    ):
        outside.made(mine("red", size=2), what="Reward", field="reward")
    with pytest.raises(StudioError, match=r"Reward .*:Green' fails with the options"):
        outside.made(mine("Green", size=2), what="Reward", field="reward")


def test_a_path_that_leads_nowhere_is_refused_before_anything_is_loaded(tmp_path: Path):
    run = short(
        DreamBooth(
            data=photos(tmp_path), model="tiny:sd1", token="sks", adapter=Custom(path="absent.py:few")
        ),
        tmp_path,
    )
    with pytest.raises(StudioError, match=r"adapter: there is no file .*absent.py") as caught:
        checks.check(run)
    assert caught.value.field == "adapter.path"


def test_finding_things_imports_no_torch():
    code = "import sys, studio.catalog.outside, studio.settings.custom; print('torch' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "False"


# ---- settings


def test_options_are_json_or_pairs_on_the_command_line():
    given = ["--data", ".", "--adapter", "custom", "--adapter.path", "a.py:few", "--adapter.options"]
    table, _ = flags.parse_run("dreambooth", [*given, '{"rank": 2, "ends": ["to_q"]}'])
    assert table.method.adapter == Custom(path="a.py:few", options={"rank": 2, "ends": ["to_q"]})
    pairs, _ = flags.parse_run("dreambooth", [*given, "rank", "2", "kind", "slow"])
    assert pairs.method.adapter.options == {"rank": 2, "kind": "slow"}
    with pytest.raises(StudioError, match=r"options were given as 'rank'; give them as JSON"):
        flags.parse_run("dreambooth", [*given, "rank"])


def test_several_are_paths_or_tables_on_the_command_line_and_in_files():
    argv = ["--attacks.custom", "a.py:push", '{"path": "a.py:pull", "options": {"factor": 2}}']
    wanted = (Custom(path="a.py:push"), Custom(path="a.py:pull", options={"factor": 2}))
    assert flags.parse(Robustness, argv, prog="x").attacks.custom == wanted
    again = serial.to_dict(Robustness(attacks=Attacks(custom=wanted)))
    assert serial.from_dict(Robustness, json.loads(json.dumps(again))).attacks.custom == wanted
    assert flags.parse(Robustness, [], prog="x", values=again).attacks.custom == wanted
    assert serial.from_dict(Attacks, {"custom": ["a.py:push"]}).custom == wanted[:1]


def test_settings_with_things_from_outside_survive_json_and_import_nothing(tmp_path: Path):
    objective = Denoising(
        times=Custom(path="gone:square"), error=Custom(path="gone:huber", options={"a": [1, None]})
    )
    method = DreamBooth(
        data=str(tmp_path), model="tiny:sd1", adapter=Custom(path="gone.py:few"), denoising=objective
    )
    run = short(method, tmp_path)
    assert Run.from_dict(run.to_dict()) == run


def test_an_old_reward_of_ones_own_is_read():
    assert serial.from_dict(User, {"function": "a:b", "seconds": 2.0, "differentiable": True}).options == {}


# ---- rewards and advantages


def test_a_reward_is_a_function_with_options_or_a_class():
    images, prompts = torch.rand(2, 3, 4, 4) * 2 - 1, ["a", "b"]
    red = Terms(User(function="things_of_mine.py:red", options={"scale": 2}), "cpu")
    green = Terms(User(function="things_of_mine.py:Green", options={"scale": 3}), "cpu")
    torch.testing.assert_close(red(images, prompts)[0], 2 * images[:, 0].mean((1, 2)))
    torch.testing.assert_close(green(images, prompts)[0], 3 * images[:, 1].mean((1, 2)))


def test_a_reward_and_an_advantage_of_ones_own_train_and_resume_exactly(tmp_path: Path):
    reward = User(function="things_of_mine.py:Green")
    method = Ddpo(**REINFORCED | {"reward": reward}, advantage=mine("ranks"))
    assert verify_resume(short(method, tmp_path), steps=3, at=1) == []


def test_an_advantage_of_another_shape_is_named():
    with pytest.raises(RunFailed, match=r"Advantage 'things_of_mine.py:lost' gave the shape \(1,\)"):
        advantages(mine("lost"), torch.rand(3), ["a"] * 3, PromptStatistics(2, 2))


# ---- attacks


def examined(root: Path, **values: Any) -> Robustness:
    data = class_folders(root / "pictures", 16)
    return Robustness(
        model=trained_folder(root), data=Labelled(train=data.train, test=data.train, augment="none"), num_images=8,
        corruptions="none", checks=False, before="none", output=str(root / "out"), hardware=BACKEND,
        attacks=Attacks(**{"names": ("fgsm",), "eps": (8.0,)} | values),
    )  # fmt: skip


def test_an_attack_of_ones_own_stands_in_the_report_beside_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    far = mine("push", factor=3.0)
    with caplog.at_level(logging.WARNING):
        found = robustness.evaluate(examined(tmp_path, custom=(mine("push"), far)))
    assert list(found.attacks) == ["fgsm", "things_of_mine.py:push", far.spoken()]
    assert (
        len({row["8/255"] for row in found.attacks.values()}) == 1
    )  # one sign step, and three times it, cut back
    assert "things_of_mine.py:push 8/255" in found.numbers
    assert "things_of_mine.py:push" in found.report.read_text()
    assert "left its ball" in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "shrink",
            r"Attack 'things_of_mine.py:shrink' gave the shape .*; it must give pictures of the shape",
        ),
        ("flight", r"Attack 'things_of_mine.py:flight': the module has no 'flight'"),
    ],
)
def test_an_attack_that_is_wrong_is_named(tmp_path: Path, name: str, said: str):
    with pytest.raises(StudioError, match=said):
        robustness.evaluate(examined(tmp_path, custom=(mine(name),)))


# ---- judges


def test_judges_of_ones_own_fill_the_table_of_a_subject(tmp_path: Path):
    data = tmp_path / "subject"
    data.mkdir()
    for index in range(2):
        picture(index).save(data / f"{index}.png")
        (data / f"{index}.txt").write_text("a sks owl on grass")
    backend = Backend(BACKEND)
    build.load("tiny:sd1", backend).pipeline().save_pretrained(tmp_path / "tuned")
    judges = Judges(
        likeness=mine("colors"),
        text=NoText(),
        diversity=mine("spread"),
        custom=(mine("red", scale=2.0), mine("Green")),
    )
    request = SubjectEval(
        artifact=str(tmp_path / "tuned"), data=str(data), model="tiny:sd1", token="sks", num_images=2, steps=1,
        judges=judges, hardware=BACKEND, output=str(tmp_path / "eval"),
    )  # fmt: skip
    found = subject.evaluate(request)
    rows = {row.name: row for row in found.rows}
    assert {"likeness", "diversity", "things_of_mine.py:red", "things_of_mine.py:Green"} <= rows.keys()
    assert rows["things_of_mine.py:red"].tuned.n == 2
    assert rows["things_of_mine.py:red"].ceiling is not None
    assert "things_of_mine.py:Green" in found.report.read_text()
    assert "things_of_mine.py:red" in json.loads(found.scores.read_text())["table"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "wide",
            r"Scorer 'things_of_mine.py:wide' gave the shape \(2, 4800\); it must give one number a picture",
        ),
        ("empty", r"Scorer 'things_of_mine.py:empty' gave numbers that are not finite"),
    ],
)
def test_a_scorer_that_is_wrong_is_named(name: str, said: str):
    score = Jury("cpu").scorer(mine(name), Evidence())
    with pytest.raises(StudioError, match=said):
        score([picture(0), picture(1)], ["a", "b"])


def test_a_backbone_and_a_diversity_that_are_wrong_are_named():
    with pytest.raises(
        StudioError, match=r"Backbone 'things_of_mine.py:flat' gave the shape \(\); it must give features"
    ):
        Jury("cpu").diversity(FeatureDiversity(backbone=mine("flat")))([picture(0), picture(1)])
    with pytest.raises(StudioError, match=r"Diversity 'things_of_mine.py:colors'"):
        Jury("cpu").diversity(mine("colors"))([picture(0, 224), picture(1, 224)])


# ---- adapters and the objective


def test_an_adapter_and_an_objective_of_ones_own_resume_exactly(tmp_path: Path):
    objective = Denoising(times=mine("square"), error=mine("charbonnier", delta=0.2))
    method = DreamBooth(
        data=photos(tmp_path / "data"),
        model="tiny:sd1",
        token="sks",
        adapter=mine("few"),
        denoising=objective,
    )
    run = short(method, tmp_path)
    assert verify_resume(run, steps=3, at=1) == []


def test_sampling_with_an_artifact_imports_nothing_that_its_settings_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "only_for_training.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    method = DreamBooth(data=photos(tmp_path / "data"), model="tiny:sd1", token="sks",
                        adapter=Custom(path="only_for_training.py:few"))  # fmt: skip
    done = run_to_end(short(method, tmp_path))
    assert sys.modules.pop("only_for_training")
    (tmp_path / "only_for_training.py").write_text("raise SystemExit('imported')")
    drawn = sample(
        SampleRequest(
            prompt=("a dog",), artifact=(str(done.path),), steps=1, hardware=BACKEND, output=str(tmp_path)
        )
    )
    assert drawn
    assert (done.export / "pytorch_lora_weights.safetensors").is_file()
    assert "only_for_training" not in sys.modules


def test_an_adapter_that_sampling_would_have_to_import_is_refused():
    with pytest.raises(StudioError, match=r"adapter 'things_of_mine.py:few' is code of your own"):
        Jedi(adapter=mine("few"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pissa", r"Adapter 'things_of_mine.py:pissa' changed the base weights"),
        ("saves", r"Adapter 'things_of_mine.py:saves' sets modules_to_save"),
        ("text", r"Adapter 'things_of_mine.py:text' gave a str; it must give a configuration"),
    ],
)
def test_an_adapter_that_no_file_would_hold_is_refused(tmp_path: Path, name: str, said: str):
    method = DreamBooth(data=photos(tmp_path / "data"), model="tiny:sd1", token="sks", adapter=mine(name))
    with pytest.raises(StudioError, match=said):
        run_to_end(short(method, tmp_path))


def test_times_and_errors_that_are_wrong_are_named():
    rng = Backend(BACKEND).rng(0, 0, rows=2)
    with pytest.raises(StudioError, match=r"Times 'things_of_mine.py:beyond' gave times from 0 to 1.98"):
        Flow().sample_times(rng, 2, mine("beyond"))
    with pytest.raises(StudioError, match=r"Error 'things_of_mine.py:one_number' gave the shape \(\)"):
        per_example(torch.zeros(1, 2), torch.zeros(1, 2), error=mine("one_number"))


# ---- data


def test_pairs_of_ones_own_train_a_clip_and_resume_exactly(tmp_path: Path):
    assert verify_resume(short(Clip(model="tiny:clip", data=mine("Noise")), tmp_path), steps=3, at=1) == []


@pytest.mark.parametrize(
    ("custom", "said"),
    [
        (mine("Noise", scale=3.0), r"Data 'things_of_mine.py:Noise' gave pixels from -[23]"),
        (mine("Noise", size=7), r"gave images \(2, 3, 7, 7\) where"),
        (mine("Green"), r"Data 'things_of_mine.py:Green' fails with the options .*'size'"),
    ],
)
def test_pairs_that_are_wrong_are_named(tmp_path: Path, custom: Custom, said: str):
    with pytest.raises(StudioError, match=said):
        run_to_end(short(Clip(model="tiny:clip", data=custom), tmp_path))


@pytest.mark.parametrize("path", ["subprocess:Popen", "os:system", "builtins:eval", "runpy:run_path"])
def test_what_comes_with_python_is_no_code_of_ones_own(path: str):
    """Settings that another person wrote could run programs by them."""
    with pytest.raises(StudioError, match="is of Python itself, which is no code of yours"):
        outside.require(path, what="Advantage", field="advantage.path")
    with pytest.raises(StudioError, match="is of Python itself, which is no code of yours"):
        outside.load(path, what="Advantage", field="advantage.path")


def test_what_a_module_has_from_python_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "borrowing.py").write_text(
        "from subprocess import Popen\nfrom functools import partial\nmine = partial(max, 1)\n"
    )
    with pytest.raises(StudioError, match="is of Python itself"):
        outside.load("borrowing.py:Popen", what="Advantage", field="advantage.path")
    assert outside.load("borrowing.py:mine", what="Advantage", field="advantage.path")(2) == 2


def test_a_run_of_another_person_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = Run.of("ddpo", prompts=["a star"], output="shared", name="run").to_dict()
    touched = tmp_path / "touched"
    run["method"]["advantage"] = {
        "kind": "custom",
        "path": "subprocess:Popen",
        "options": {"args": ["touch", str(touched)]},
    }
    with pytest.raises(StudioError, match="is of Python itself"):
        run_to_end(Run.from_dict(run))
    assert not touched.exists()

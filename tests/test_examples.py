"""docs/examples: methods that are written outside of the repository's packages train, resume, sample, export and are listed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import studio
from studio import testing
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.catalog import methods
from studio.catalog.run import Run
from studio.commands import usage
from studio.contracts.sampling import Request
from studio.errors import StudioError
from studio.settings.run import Hardware
from studio.settings.sampling import SampleRequest
from studio.training.verify import verify_resume
from tests import tree

EXAMPLES = tree.ROOT / "docs" / "examples"
ON_CPU = Hardware(device="cpu")


@pytest.fixture(autouse=True)
def _there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)


def python(*words: str, cwd: Path = EXAMPLES) -> subprocess.CompletedProcess[str]:
    known = {**os.environ, "PYTHONPATH": str(tree.ROOT), "COLUMNS": "160"}
    command = [sys.executable, "-m", *words]
    return subprocess.run(
        command, cwd=cwd, env=known, capture_output=True, text=True, timeout=240, check=False
    )


def pictures(output: Path, *artifacts: str) -> list[bytes]:
    request = SampleRequest(
        prompt=("a photo of a sks dog",), model="tiny:sd1", artifact=artifacts, steps=2, hardware=ON_CPU, output=str(output)
    )  # fmt: skip
    return [image.tobytes() for image in studio.sample(request).images]


def test_the_example_is_listed_and_its_settings_are_explained():
    assert "custom_diffusion" in studio.list_methods()
    shown = python("studio.cli", "train", "custom_diffusion", "--help").stdout
    assert "Custom Diffusion: teach a model one subject by the keys and values of the text alone." in shown
    assert "--prior-weight" in shown
    assert "custom_diffusion     yours, in this folder" in usage.usage()


def test_the_command_trains_the_example_and_its_export_draws_other_pictures(tmp_path: Path):
    data = testing.photos(tmp_path / "data")
    method = (
        f"--data {data} --model tiny:sd1 --class-word dog --token sks --prior no-prior --images.cache none"
    )
    run = f"--name one --output {tmp_path} --hardware.device cpu --loop.steps 2 --loop.batch-size 1 --optim.lr 1e-2"
    done = python("studio.cli", "train", "custom_diffusion", *method.split(), *run.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("one/export/merged/unet/*.safetensors"))
    assert pictures(tmp_path / "tuned", str(tmp_path / "one")) != pictures(tmp_path / "base")


def test_a_request_names_the_subject_by_the_slots_of_its_prompt(tmp_path: Path):
    trainer = testing.started(
        testing.small(testing.case_of(methods.card("custom_diffusion"))(tmp_path), tmp_path)
    )
    trainer.setup(trainer.backend)
    drawn = [
        trainer.sample(Request(prompts=[prompt], steps=1), Rng.single(0, 0, 1)).images[0].tobytes()
        for prompt in ("a {token} {class}", "a sks object", "a cat")
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_contract_is_tested_on_the_example_by_one_command():
    # Resuming is tested below.
    command = ("pytest", "-p", "no:cacheprovider", "-q", "--pyargs", "studio.testing")
    done = python(*command, "--method", "custom_diffusion", "-k", "not resuming and not stopped")
    assert "5 passed, 2 skipped, 2 deselected" in done.stdout, done.stdout + done.stderr


def test_a_method_without_a_case_is_told_what_to_write():
    with pytest.raises(
        StudioError, match=r"'dreambooth' has no case: write `def case\(folder: Path\)` into .*case.py"
    ):
        testing.case_of(methods.card("dreambooth"))


@pytest.mark.parametrize(
    ("model", "moves"),
    [("tiny:sd1", ("attn2.to_k.weight", "attn2.to_v.weight")), ("tiny:sd3", ("attn.add_k_proj.", "attn.add_v_proj."))],
)  # fmt: skip
def test_keys_and_values_of_the_text_train_and_nothing_else(
    model: str, moves: tuple[str, ...], tmp_path: Path
):
    run = Run.of("custom_diffusion", data=testing.photos(tmp_path), model=model, token="sks", prior="no-prior",
                 images={"cache": "none"}, preset="paper")  # fmt: skip
    trainer = methods.card_of(run.method).load_trainer()(run.method)
    (group,) = trainer.setup(Backend(ON_CPU))
    free = {name for name, value in group.module.named_parameters() if value.requires_grad}
    assert free == group.names
    assert free == {
        name for name, _ in group.module.named_parameters() if any(each in name for each in moves)
    }


def test_the_example_trains_from_elsewhere_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tree.ROOT)
    card = methods.card("docs/examples/custom_diffusion")
    run = testing.small(testing.case_of(card)(tmp_path / "data"), tmp_path / "runs")
    assert verify_resume(run, steps=2, at=1) == []
    assert methods.card(methods.reference(card)) is card

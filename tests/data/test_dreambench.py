"""DreamBench as its authors published it, and our small benchmark."""

from pathlib import Path

import pytest

from studio.data import dreambench
from studio.errors import StudioError
from tests.data.conftest import draw

FILE = """Classes

subject_name,class
dog2,dog
vase,vase

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token),
'a red {0} {1}'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} wearing a red hat'.format(unique_token, class_token)
]
"""


def beside_the_checkout(name: str) -> Path:
    folder = Path(__file__).parents[3] / "shared" / "data" / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not here")
    return folder


def small(tmp_path: Path) -> dreambench.Bench:
    (tmp_path / "prompts_and_classes.txt").write_text(FILE)
    draw(tmp_path / "dog2" / "00.jpg")
    draw(tmp_path / "vase" / "00.jpg")
    return dreambench.load(tmp_path)


def test_live_subjects_have_prompts_of_their_own(tmp_path: Path):
    bench = small(tmp_path)
    assert [subject.live for subject in bench.subjects] == [True, False]
    assert bench.subject("dog2").prompts == ("a {token} {class} wearing a red hat",)


def test_prompts_fill_token_and_class_or_the_class_alone(tmp_path: Path):
    vase = small(tmp_path).subject("vase")
    assert vase.prompt(1, "sks") == "a red sks vase"
    assert vase.prompt(1, "") == "a red vase"


def test_an_unknown_subject_gets_the_nearest_name(tmp_path: Path):
    with pytest.raises(StudioError, match="did you mean 'vase'"):
        small(tmp_path).subject("vaze")


def test_a_folder_without_a_benchmark_is_refused(tmp_path: Path):
    with pytest.raises(StudioError, match=r"holds no benchmark; give a folder with prompts_and_classes\.txt"):
        dreambench.load(tmp_path)


def test_a_subject_without_pictures_is_named(tmp_path: Path):
    (tmp_path / "prompts_and_classes.txt").write_text(FILE)
    with pytest.raises(StudioError, match=r"no pictures in .*dog2; copy it whole"):
        dreambench.load(tmp_path)


def test_dreambench_has_30_subjects_25_prompts_and_3000_jobs():
    bench = dreambench.load(beside_the_checkout("dreambench"))
    assert len(bench.subjects) == 30
    assert {len(subject.prompts) for subject in bench.subjects} == {25}
    jobs = bench.jobs("sks")
    assert len(jobs) == len(set(jobs)) == 3000


def test_dreambench_has_9_live_subjects_and_15_classes():
    bench = dreambench.load(beside_the_checkout("dreambench"))
    assert sum(subject.live for subject in bench.subjects) == 9
    assert len({subject.class_name for subject in bench.subjects}) == 15
    assert all(4 <= len(subject.references) <= 6 for subject in bench.subjects)


def test_our_benchmark_has_12_subjects_with_5_references_and_8_targets():
    bench = dreambench.load(beside_the_checkout("personalization_bench"))
    assert len(bench.subjects) == 12
    for subject in bench.subjects:
        assert (len(subject.references), len(subject.targets), len(subject.prompts)) == (5, 8, 10)
        assert all(path.is_file() for path in subject.targets.values())
        assert all("{token} {class}" in prompt for prompt in subject.prompts)

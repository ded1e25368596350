import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from studio.errors import StudioError
from studio.metrics.build import Evidence, Jury
from studio.metrics.config import (
    BackgroundColor,
    FeatureDiversity,
    Likeness,
    Lpips,
    OpenClip,
    PixelCloseness,
    PromptFit,
    TargetLikeness,
    Timm,
)
from studio.metrics.images import fit, to_tensor
from studio.metrics.scorers import without
from studio.metrics.sets import frechet
from tests.metrics.judges import clip_folder, picture, plain, timm_folder

COLORS = {"red": (214, 48, 48), "green": (60, 170, 80), "white": (250, 250, 250), "black": (25, 25, 28)}


@pytest.fixture(scope="module")
def jury():
    return Jury("cpu", batch_size=3)


@pytest.fixture(scope="module")
def timm_judge(tmp_path_factory):
    return Timm(model=timm_folder(tmp_path_factory.mktemp("judge") / "timm"))


@pytest.fixture(scope="module")
def clip_judge(tmp_path_factory):
    return OpenClip(model=clip_folder(tmp_path_factory.mktemp("judge") / "clip"))


def test_a_picture_is_as_like_itself_as_can_be(jury, timm_judge):
    score = jury.scorer(Likeness(backbone=timm_judge), Evidence(references=[picture(0)]))
    assert score([picture(0)], [""]) == pytest.approx([1.0], abs=1e-5)


def test_likeness_is_symmetric(jury, timm_judge):
    there = jury.scorer(Likeness(backbone=timm_judge), Evidence(references=[picture(0)]))([picture(1)], [""])
    back = jury.scorer(Likeness(backbone=timm_judge), Evidence(references=[picture(1)]))([picture(0)], [""])
    torch.testing.assert_close(there, back)


def test_likeness_of_each_picture_does_not_depend_on_order_or_batch(jury, clip_judge):
    pictures = [picture(i) for i in range(5)]
    score = jury.scorer(Likeness(backbone=clip_judge), Evidence(references=pictures[:2]))
    alone = torch.cat([score([p], [""]) for p in pictures])
    fresh = Jury("cpu").scorer(Likeness(backbone=clip_judge), Evidence(references=pictures[1::-1]))
    torch.testing.assert_close(fresh(pictures[::-1], [""] * 5).flip(0), alone, atol=1e-5, rtol=0)


def test_likeness_averages_over_the_references(jury, timm_judge):
    def against(*references):
        return float(
            jury.scorer(Likeness(backbone=timm_judge), Evidence(references=references))([picture(3)], [""])
        )

    assert against(picture(0), picture(1)) == pytest.approx(
        (against(picture(0)) + against(picture(1))) / 2, abs=1e-5
    )


def test_constant_pictures_have_finite_scores(jury, timm_judge):
    gray = Image.new("RGB", (40, 40), "gray")
    score = jury.scorer(Likeness(backbone=timm_judge), Evidence(references=[gray]))
    assert torch.isfinite(score([gray, Image.new("RGB", (40, 40), "black")], ["", ""])).all()


def test_a_target_of_its_own_prompt_scores_one_and_no_pixel_differs(jury, timm_judge):
    evidence = Evidence(targets={"a": picture(0), "b": picture(1)})
    likeness = jury.scorer(TargetLikeness(backbone=timm_judge), evidence)
    assert likeness([picture(1), picture(0)], ["b", "a"]) == pytest.approx([1, 1], abs=1e-5)
    assert jury.scorer(PixelCloseness(), evidence)([picture(0)], ["a"]).item() == 0


def test_black_is_255_levels_away_from_white(jury):
    score = jury.scorer(PixelCloseness(), Evidence(targets={"a": Image.new("RGB", (80, 80), "white")}))
    assert score([Image.new("RGB", (40, 40), "black")], ["a"]).item() == pytest.approx(-255)


def test_a_prompt_without_target_is_named(jury):
    score = jury.scorer(PixelCloseness(), Evidence(targets={"a": picture(0)}))
    with pytest.raises(StudioError, match="'b' has no target picture"):
        score([picture(0)], ["b"])


def test_prompt_fit_is_a_cosine_that_ignores_the_token(jury, clip_judge):
    score = jury.scorer(PromptFit(backbone=clip_judge), Evidence(silent=["sks"]))
    with_token, plain_text = score([picture(0)] * 2, ["a sks dog", "a dog"])
    assert with_token == plain_text
    assert abs(with_token) <= 1


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ("a sks dog", "a dog"),
        ("a dog named sks", "a dog named"),
        ("asks a dog", "asks a dog"),
        ("<v1> cat", "cat"),
    ],
)
def test_only_whole_words_are_left_out(prompt, left):
    assert without(prompt, ["sks", "<v1>"]) == left


@pytest.mark.parametrize("name", list(COLORS))
def test_background_is_right_on_its_own_color_only(jury, name):
    score = jury.scorer(BackgroundColor(), Evidence(colors=COLORS))
    prompts = [f"a sks dog on a {color} background" for color in COLORS]
    assert score([plain(COLORS[name])] * len(COLORS), prompts).tolist() == [float(c == name) for c in COLORS]


def test_background_stands_a_subject_in_one_corner(jury):
    image = plain(COLORS["red"])
    image.paste((0, 0, 0), (0, 0, 12, 12))
    assert (
        jury.scorer(BackgroundColor(), Evidence(colors=COLORS))([image], ["x on a red background"]).item()
        == 1
    )


@pytest.mark.parametrize(
    "prompt",
    ["on green grass", "on a red and white checkerboard", "on a red background with white polka dots"],
)
def test_background_check_refuses_prompts_without_a_plain_color(jury, prompt):
    with pytest.raises(StudioError, match="names no plain background color"):
        jury.scorer(BackgroundColor(), Evidence(colors=COLORS))([picture(0)], [prompt])


def test_copies_have_no_diversity_and_different_pictures_have_some(jury, timm_judge):
    spread = jury.diversity(FeatureDiversity(backbone=timm_judge))
    assert spread([picture(0)] * 3) == pytest.approx(0, abs=1e-6)
    assert spread([picture(0), plain((255, 255, 255))]) > 1e-4


def test_diversity_of_one_picture_is_refused(jury, timm_judge):
    with pytest.raises(StudioError, match="ask for 2 or more"):
        jury.diversity(FeatureDiversity(backbone=timm_judge))([picture(0)])


def test_lpips_without_its_weights_says_which_file(jury, tmp_path):
    with pytest.raises(StudioError, match=r"neither alexnet\.safetensors nor alexnet-owt"):
        jury.diversity(Lpips(weights=str(tmp_path)))


def test_frechet_distance_of_a_set_with_itself_is_zero():
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    assert frechet(features, features.flip(0)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_the_formula_with_matrix_roots():
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(50, 3, generator=generator), 2 * torch.randn(40, 3, generator=generator) + 1
    roots = torch.linalg.eigvals(first.double().T.cov() @ second.double().T.cov()).sqrt().real.sum()
    slow = (first.double().mean(0) - second.double().mean(0)).square().sum()
    slow = slow + first.double().T.cov().trace() + second.double().T.cov().trace() - 2 * roots
    assert frechet(first, second) == pytest.approx(float(slow))


def test_pictures_fit_by_their_short_side():
    wide = to_tensor(Image.new("RGB", (90, 45), "white"))[None]
    assert fit(wide, 32).shape == (1, 3, 32, 32)


def test_transparent_parts_are_white():
    assert to_tensor(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).min() == 1


def test_a_misspelled_judge_offers_the_right_one(jury):
    with pytest.raises(StudioError, match="did you mean 'ViT-B-32'"):
        jury.judge(OpenClip(model="ViT-B-33"))


def test_a_folder_that_holds_no_judge_is_refused(jury, tmp_path):
    with pytest.raises(StudioError, match="There is no judge"):
        jury.judge(Timm(model=str(tmp_path)))


def test_lpips_tells_copies_from_different_pictures(jury, tmp_path):
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.alexnet(weights=None, dropout=0).features
    save_file({f"features.{k}": v for k, v in network.state_dict().items()}, tmp_path / "alexnet.safetensors")
    spread = jury.diversity(Lpips(weights=str(tmp_path)))
    assert spread([picture(0)] * 3) == pytest.approx(0, abs=1e-6)
    assert spread([picture(0), picture(1)]) > 1e-3

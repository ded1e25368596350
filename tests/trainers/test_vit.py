"""Plain finetuning: what moves, what is written, LP-FT, AdaptFormer, SubTuning, interpolation."""

import json
from pathlib import Path

import pytest
import torch

from studio.adapters.config import Lora, Oft
from studio.contracts.sampling import Request
from studio.data.config import Labelled
from studio.errors import StudioError
from studio.models import adaptformer
from studio.models.vit import TINY, load_classifier, require_classes, save_classifier
from studio.training.train import run_to_end
from studio.training.verify import verify_resume
from studio.vision.config import Adapted, AdaptFormer, LinearProbe, LpFt, SubTuning, Tuning, Whole
from studio.vision.interpolate import interpolated
from studio.vision.tuning import blocks_of, tune
from tests.classifiers import CLASSES, pictures, trained, untrained
from tests.trainers.pictures import batch_of, class_folders, ready, rng_of, short_run, trained_folder
from trainers.vit.config import Vit
from trainers.vit.subtuning import Search, choose_blocks
from trainers.vit.trainer import VitTrainer

TUNINGS = (
    Whole(),
    Whole(layer_decay=0.75),
    LinearProbe(),
    LpFt(probe_steps=3),
    Adapted(adapter=Lora(rank=4)),
    Adapted(adapter=Oft(block_size=8)),
    AdaptFormer(bottleneck=4),
    SubTuning(blocks=(1,)),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    return class_folders(tmp_path_factory.mktemp("pictures"))


@pytest.mark.parametrize("name", ["tiny:vit", "tiny:deit", "tiny:beit", "tiny:swin"])
def test_tokens_and_the_rest_are_the_model(name: str) -> None:
    model = untrained(name)
    images, _ = pictures(3, 1)
    torch.testing.assert_close(model.from_tokens(model.tokens(images)), model(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["tiny:vit", "tiny:beit", "tiny:swin", "tiny:resnet"])
def test_head_of_features_is_the_model(name: str) -> None:
    model = untrained(name)
    images, _ = pictures(3, 1)
    torch.testing.assert_close(model.classify(model.features(images)), model(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", TINY)
def test_a_saved_classifier_is_read_back_with_its_classes_and_normalization(
    name: str, tmp_path: Path
) -> None:
    model = untrained(name)
    images, _ = pictures(2, 1)
    save_classifier(model, model.network, tmp_path)
    again = load_classifier(str(tmp_path), CLASSES).eval()
    assert torch.equal(again(images), model(images))
    assert (again.classes, again.mean_std, again.fresh_head) == (model.classes, model.mean_std, False)


@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda t: type(t).__name__)
def test_every_way_of_tuning_starts_at_the_model(tuning: Tuning) -> None:
    model = trained()
    images, _ = pictures(4, 1)
    before = model(images)
    tune(tuning, model)
    torch.testing.assert_close(model.eval()(images), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda t: type(t).__name__)
def test_only_what_is_named_moves_and_the_export_answers_the_same(
    tuning: Tuning, data: Labelled, tmp_path: Path
) -> None:
    method = Vit(model="tiny:vit", data=data, tuning=tuning)
    trainer = ready(VitTrainer(method))
    before = {name: value.clone() for name, value in trainer.task.model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in trainer.task.model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(5):
        optimizer.zero_grad()
        trainer.loss(batch_of(), rng_of(batch_of())).total.backward()
        optimizer.step()
        trainer.after_step(step + 1)
    trains = trainer.task.tuned.trains
    changed = {
        name for name, value in trainer.task.model.named_parameters() if not torch.equal(value, before[name])
    }
    assert changed <= trains
    assert any("head" in name for name in changed)
    files = trainer.export(tmp_path)
    assert all(path.exists() for path in files)
    images, _ = pictures(4, 1)
    with torch.no_grad():
        expected = trainer.sample(
            Request(batch={"images": images, "labels": torch.zeros(4)}), rng_of(batch_of(4))
        ).logits
        torch.testing.assert_close(
            load_classifier(str(tmp_path), CLASSES).eval()(images), expected, rtol=1e-4, atol=1e-5
        )


def test_a_run_learns_and_resumes_exactly(data: Labelled, tmp_path: Path) -> None:
    method = Vit(model="tiny:vit", data=data, tuning=LpFt(probe_steps=2))
    assert verify_resume(short_run(method, tmp_path, "exact"), steps=4, at=2) == []


def test_training_again_from_a_run_keeps_its_head(data: Labelled, tmp_path: Path) -> None:
    folder = run_to_end(short_run(Vit(model="tiny:vit", data=data), tmp_path, "first", steps=2))
    again = ready(VitTrainer(Vit(model=str(folder.path), data=data)))
    assert not again.task.model.fresh_head


def test_the_body_rests_while_lp_ft_probes(data: Labelled) -> None:
    trainer = ready(VitTrainer(Vit(model="tiny:vit", data=data, tuning=LpFt(probe_steps=2))))
    for step, body_moves in ((0, False), (2, True)):
        trainer.step = step
        trainer.task.model.zero_grad(set_to_none=True)
        trainer.loss(batch_of(), rng_of(batch_of())).total.backward()
        assert (trainer.task.model.network.blocks[0].mlp.fc1.weight.grad is not None) is body_moves


def test_adaptformer_has_the_paper_s_number_of_parameters() -> None:
    model = untrained()
    tuned = tune(AdaptFormer(bottleneck=8), model)
    added = sum(p.numel() for n, p in model.named_parameters() if n in tuned.trains - model.head_parameters())
    assert added == 2 * (2 * 48 * 8 + 8 + 48)  # blocks * (2 d r + r + d)


def test_adaptformer_of_scale_zero_is_the_plain_model() -> None:
    model, plain = untrained(), untrained()
    tune(AdaptFormer(bottleneck=8, scale=0.0), model)
    for value in adaptformer.bottlenecks(model.network).values():
        value.data.normal_()
    images, _ = pictures(2, 1)
    assert torch.equal(model.eval()(images), plain(images))


def test_adaptformer_refuses_models_without_plain_blocks() -> None:
    with pytest.raises(StudioError, match=r"plain transformer blocks.*--tuning adapted"):
        tune(AdaptFormer(), untrained("tiny:swin"))


def test_subtuning_with_all_blocks_moves_every_block() -> None:
    model = untrained()
    trains = tune(SubTuning(blocks=(0, 1)), model).trains
    assert {n for n, _ in model.named_parameters() if ".blocks." in n} <= trains


def test_subtuning_of_a_convolutional_network_keeps_frozen_statistics(data: Labelled) -> None:
    model = untrained("tiny:resnet")
    tune(SubTuning(blocks=(3,)), model)
    images, _ = pictures(4, 1)
    frozen, moving = (model.network.get_buffer(f"layer{n}.0.bn1.running_mean") for n in (1, 4))
    before = frozen.clone(), moving.clone()
    model(images)
    assert torch.equal(frozen, before[0])
    assert not torch.equal(moving, before[1])


def test_subtuning_chooses_the_block_that_matters(tmp_path: Path) -> None:
    model = trained()
    broken = model.network.get_parameter("blocks.1.mlp.fc2.bias")
    broken.data += 20 * torch.randn(48, generator=torch.Generator().manual_seed(0))
    save_classifier(model, model.network, tmp_path / "broken")
    settings = SubTuning(max_blocks=1, search_steps=12, search_lr=5e-3)
    config = Vit(model=str(tmp_path / "broken"), data=class_folders(tmp_path / "data", 160), tuning=settings)
    from tests.trainers.pictures import backend_of_tests

    first = choose_blocks(config, settings, backend_of_tests())
    profile = Search(config, settings, backend_of_tests()).profile()
    assert first == (max(profile, key=lambda t: t.accuracy).blocks[0],)
    assert len(blocks_of(model)) == len(profile) == 2


@pytest.mark.parametrize("blocks", [(), (2,)])
def test_blocks_that_do_not_exist_are_refused(blocks: tuple[int, ...]) -> None:
    with pytest.raises(StudioError, match="has blocks 0 to 1"):
        tune(SubTuning(blocks=blocks), untrained())


def test_interpolation_ends_at_both_models_and_is_straight() -> None:
    before, after = untrained(), trained()
    before.fresh_head = False
    for alpha, model in ((0.0, before), (1.0, after)):
        found = interpolated(before, after, alpha).state_dict()
        assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())
    first, middle, last = (
        model.network.get_parameter("norm.weight")
        for model in (before, interpolated(before, after, 0.5), after)
    )
    torch.testing.assert_close(middle, (first + last) / 2)


def test_a_new_head_is_taken_from_the_finetuned_model() -> None:
    before, after = untrained(), trained()
    head = interpolated(before, after, 0.0).network.get_parameter("head.weight")
    assert torch.equal(head, after.network.get_parameter("head.weight"))


def test_interpolating_two_architectures_is_refused() -> None:
    with pytest.raises(StudioError, match="not the same architecture"):
        interpolated(untrained("tiny:beit"), trained(), 0.5)


def test_pictures_outside_of_the_unit_range_are_refused() -> None:
    with pytest.raises(StudioError, match=r"Pictures are in \[-1.00, 1.00\].*takes \[0, 1\]"):
        untrained().check(torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32))


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(StudioError, match="16 x 16 pixels, but 'tiny:vit' takes 32 x 32"):
        untrained().check(torch.zeros(1, 3, 16, 16))


def test_a_folder_without_normalization_is_refused(tmp_path: Path) -> None:
    model = untrained()
    save_classifier(model, model.network, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["pretrained_cfg"]["mean"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(StudioError, match=r"does not say how pictures are normalized \(no mean"):
        load_classifier(str(tmp_path))


def test_classes_of_model_and_data_must_agree() -> None:
    with pytest.raises(StudioError, match="tells 4 classes apart, but the data has 3"):
        require_classes(trained(), CLASSES[:3])
    with pytest.raises(StudioError, match=r"Class 0 is 'plaid' in .* but 'waves' in the data"):
        require_classes(trained(), CLASSES[::-1])


def test_an_unknown_model_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(StudioError, match="Unknown model 'vit_smal_patch16_224'; did you mean 'vit_small"):
        load_classifier("vit_smal_patch16_224")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"no config.json and model.safetensors"):
        load_classifier(str(tmp_path))


def test_pretrained_weights_that_are_not_here_are_a_sentence() -> None:
    with pytest.raises(StudioError, match=r"go online once, or take random weights with new:vit_tiny"):
        load_classifier("vit_tiny_patch16_224.augreg_in21k_ft_in1k")


def test_a_class_with_one_picture_is_refused(tmp_path: Path) -> None:
    data = class_folders(tmp_path)
    for path in sorted((tmp_path / "spots").iterdir())[1:]:
        path.unlink()
    with pytest.raises(StudioError, match=r"Class 'spots' .* has 1 picture"):
        ready(VitTrainer(Vit(model="tiny:vit", data=data)))


def test_a_trained_folder_is_a_model(tmp_path: Path) -> None:
    assert not load_classifier(trained_folder(tmp_path), CLASSES).fresh_head

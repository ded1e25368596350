"""Training goes on from an adapter trained before."""

import pytest

from studio.adapters.build import names
from studio.adapters.config import Export, Full, Loha, Lora, Oft
from studio.adapters.strength import set_strength
from studio.adapters.verify import ask
from studio.errors import StudioError
from studio.weights.export import export
from studio.weights.warm_start import attach_from
from tests.export.conftest import LORA, train, trainable

DORA, ROTATION, LOHA = Lora(rank=4, dora=True), Oft(block_size=8), Loha(rank=2)


@pytest.fixture
def trained_before(family, tmp_path):
    """An adapter in a format, the answer of the model that has it, and that of its base."""

    def build(adapter, form):
        base = ask(family, {})
        [one] = export(family, train(family, adapter), tmp_path / "old", settings=Export(formats=(form,)))
        return one.path, ask(family, {}), base

    return build


@pytest.mark.parametrize(
    ("adapter", "form"),
    [(LORA, "diffusers"), (LORA, "kohya"), (LORA, "peft"), (DORA, "diffusers"), (ROTATION, "peft"), (LOHA, "peft")],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__.lower(),
)  # fmt: skip
def test_training_starts_where_the_other_one_ended(adapter, form, trained_before, untrained):
    path, wanted, base = trained_before(adapter, form)
    fresh = untrained()
    modules = trainable(fresh)
    found = attach_from(str(path), adapter, fresh, modules)

    assert base.difference(wanted) > 1e-3
    assert wanted.difference(ask(fresh, {})) <= 1e-4
    assert names(fresh.denoiser) == ["studio"]
    assert all(
        dict(modules[key].named_parameters())[name].requires_grad for key in found for name in found[key]
    )
    set_strength(modules, "studio", 0.0)
    assert base.difference(ask(fresh, {})) <= 1e-6


def test_another_alpha_gives_the_same_update(trained_before, untrained):
    path, wanted, _ = trained_before(LORA, "kohya")
    fresh = untrained()
    attach_from(str(path), Lora(rank=4, alpha=1), fresh, trainable(fresh))
    assert wanted.difference(ask(fresh, {})) <= 1e-4


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (Lora(rank=8), "has rank 4 and these settings 8; set --adapter.rank 4"),
        (Lora(rank=4, dora=True), "is a plain LoRA; set --adapter.no-dora"),
        (ROTATION, "is a LoRA, and these settings train another adapter; set --adapter lora"),
        (Full(), "--start is for adapters; give a whole model as --model"),
    ],
    ids=["rank", "dora", "rotation", "full"],
)
def test_settings_that_do_not_fit_a_lora_are_named(adapter, message, trained_before, untrained):
    path, _, _ = trained_before(LORA, "diffusers")
    fresh = untrained()
    with pytest.raises(StudioError, match=message):
        attach_from(str(path), adapter, fresh, trainable(fresh))


def test_layers_that_do_not_train_are_refused(trained_before, untrained):
    path, _, _ = trained_before(Lora(rank=4, layers="linear"), "diffusers")
    fresh = untrained()
    with pytest.raises(
        StudioError, match=r"layers that these settings do not train, first .*; choose them with"
    ):
        attach_from(str(path), LORA, fresh, trainable(fresh))


def test_a_folder_of_other_settings_is_refused(trained_before, untrained):
    path, _, _ = trained_before(LOHA, "peft")
    fresh = untrained()
    with pytest.raises(StudioError, match=r"made with r 2, and these settings have 4"):
        attach_from(str(path), Loha(rank=4), fresh, trainable(fresh))


def test_weights_of_a_part_that_does_not_train_are_refused(trained_before, untrained):
    path, _, _ = trained_before(LORA, "diffusers")
    fresh = untrained()
    with pytest.raises(StudioError, match=r"weights of the text_encoder, .*; set --text-encoder"):
        attach_from(str(path), LORA, fresh, {"unet": fresh.denoiser})


def test_a_place_where_nothing_is_is_named(untrained):
    fresh = untrained()
    with pytest.raises(StudioError, match="nowhere does not exist") as refused:
        attach_from("nowhere", LORA, fresh, trainable(fresh))
    assert refused.value.field == "start"

"""Checkpoints as people have them: each kind is told, loads right, or is refused in a sentence."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.catalog import families
from studio.catalog.family import Part
from studio.catalog.known import Known
from studio.catalog.recognize import recognize
from studio.errors import StudioError
from studio.models.architecture import modules
from studio.models.build import load
from studio.models.checkpoints.ready import ready
from studio.models.checkpoints.single import from_file
from studio.models.files import check_library
from studio.models.tiny import T5_TOKENS
from studio.sampling import infer
from studio.settings.run import Hardware
from studio.settings.sampling import Parts, SampleRequest, Text
from tests import checkpoints
from tests.checkpoint_kinds import KINDS, sd2, sdxl
from tests.models import original_layout
from tests.models.test_cards import PUBLISHED

NAMES = {"sd15": "sd1", "sd21": "sd2", "sdxl": "sdxl"}
"""Published models whose files hold all of their networks, and their families."""


@pytest.mark.parametrize("kind", KINDS, ids=[kind.title for kind in KINDS])
def test_each_kind_is_told_before_anything_is_loaded(kind, tmp_path):
    said = checkpoints.happens(kind)
    assert re.search(kind.said, said), said
    assert said.startswith("refused") != kind.loads, said


def test_what_is_refused_is_refused_when_it_is_loaded(backend, tmp_path):
    kind = next(kind for kind in KINDS if kind.title == "Playground 2.5")
    with pytest.raises(StudioError, match=r"Playground 2\.5"):
        load(str(kind.make(tmp_path)), backend)


def test_recognizing_imports_no_torch():
    code = "import sys, studio.catalog.recognize; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def of_full_size(name, path):
    """A file of a published model's names and shapes, of zeros."""
    with torch.device("meta"):
        found = original_layout.whole(NAMES[name], modules(families.by_name(name)[1]))
    return original_layout.sparse(path, {key: value.shape for key, value in found.items()})


def check_it_is_whole(pipeline, variant):
    for name, part in variant.architecture.items():
        if name != "scheduler":
            module = getattr(pipeline, name)
            assert type(module).__name__ == part.cls
            assert {value.device.type for value in module.state_dict().values()} == {"cpu"}, name
            assert {p.dtype for p in module.parameters()} == {torch.float16}, name


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_a_published_model_loads_without_a_folder_beside_it(name, tmp_path):
    known = recognize(str(of_full_size(name, tmp_path / "model.safetensors")))
    pipeline = from_file(known, torch.float16, {})
    check_it_is_whole(pipeline, families.by_name(name)[1])
    wanted = dict(known.variant.architecture["unet"].config)
    assert {key: pipeline.unet.config[key] for key in wanted} == wanted
    assert pipeline.tokenizer("a photo of a cat").input_ids[1:3] == [320, 1125]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not here")
@pytest.mark.parametrize(("name", "header"), [("sd15", "sd15"), ("sdxl", "sdxl_base")])
def test_the_published_files_fit(name, header, tmp_path):
    listed = json.loads((PUBLISHED / "single_file" / f"{header}_header.json").read_text())
    shapes = {key: shape for key, (dtype, shape) in listed.items() if dtype == "F16"}
    path = original_layout.sparse(tmp_path / "model.safetensors", shapes)
    check_it_is_whole(from_file(recognize(str(path)), torch.float16, {}), families.by_name(name)[1])


def known_of(family, path, **changes):
    """What would be known of a file of a tiny model."""
    card, pipeline = families.cards()[family.name], family.pipeline()
    parts = {
        key: Part(
            type(module).__name__,
            clean(module),
            "diffusers" if hasattr(module, "_class_name") or key in ("unet", "vae") else "transformers",
        )
        for key, module in family.modules().items()
    }
    architecture = parts | {
        "scheduler": Part(type(pipeline.scheduler).__name__, dict(pipeline.scheduler.config))
    }
    variant = dataclasses.replace(card.variants[0], architecture=architecture)
    starts = {part: start for part, (start, _) in original_layout.TEXT[family.name].items()}
    starts |= {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
    told = {"prediction": pipeline.scheduler.config.prediction_type, "starts": starts} | changes
    return Known("file", card, variant, path=path, **told)


def clean(module):
    config = module.config if isinstance(module.config, dict) else module.config.to_dict()
    return {key: value for key, value in config.items() if not key.startswith("_")}


def same(one, other):
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_every_weight_comes_out_as_it_went_in(name, families, tmp_path):
    path = tmp_path / "model.safetensors"
    original_layout.write(families[name].pipeline(), path, name)
    again = from_file(known_of(families[name], path), torch.float32, {})
    assert all(same(module, getattr(again, key)) for key, module in families[name].modules().items())


def changed(path, change):
    """The file with other names or tensors."""
    found = load_file(path)
    save_file({key: value for pair in found.items() for key, value in change(*pair)}, path)


def test_old_names_of_clip_are_read(families, tmp_path):
    path = tmp_path / "model.safetensors"
    original_layout.write(families["sd1"].pipeline(), path)
    changed(path, lambda key, value: [(key.replace("transformer.text_model.", "transformer."), value)])
    again = from_file(known_of(families["sd1"], path), torch.float32, {})
    assert same(families["sd1"].text_encoders["text_encoder"], again.text_encoder)


def test_an_sdxl_of_diffusers_own_script_keeps_its_projection(families, tmp_path):
    path = tmp_path / "model.safetensors"
    original_layout.write(families["sdxl"].pipeline(), path, "sdxl")

    def as_diffusers_writes_it(key, value):
        turned = key.endswith(".text_projection")
        return [(f"{key}.weight", value.T.contiguous()) if turned else (key, value)]

    changed(path, as_diffusers_writes_it)
    again = from_file(known_of(families["sdxl"], path), torch.float32, {})
    assert same(families["sdxl"].text_encoders["text_encoder_2"], again.text_encoder_2)


def test_absent_weights_are_counted_and_named(families, tmp_path):
    path = tmp_path / "model.safetensors"
    original_layout.write(families["sd1"].pipeline(), path)
    changed(path, lambda key, value: [] if "input_blocks.0.0" in key else [(key, value)])
    with pytest.raises(StudioError, match=r"of its weights are absent.*such as conv_in\.weight"):
        from_file(known_of(families["sd1"], path), torch.float32, {})


def test_training_a_model_leaves_its_file_as_it_is(families, tmp_path):
    path = tmp_path / "model.safetensors"
    original_layout.write(families["sd1"].pipeline(), path)
    before = path.read_bytes()
    again = from_file(known_of(families["sd1"], path), torch.float32, {})
    with torch.no_grad():
        again.unet.conv_in.weight.add_(1)
    assert path.read_bytes() == before


def test_what_a_file_says_of_its_noise_reaches_the_scheduler(families, tmp_path):
    path = tmp_path / "model.safetensors"
    original_layout.write(families["sd1"].pipeline(), path)
    known = known_of(families["sd1"], path, prediction="v_prediction", zero_snr=True)
    scheduler = from_file(known, torch.float32, {}).scheduler
    assert scheduler.config.prediction_type == "v_prediction"
    assert scheduler.alphas_cumprod[-1] < 1e-6


def test_a_variant_and_a_prediction_can_be_told(tmp_path):
    known = recognize(str(sd2()(tmp_path))).told(Parts(prediction="epsilon"))
    assert known.prediction == "epsilon"
    with pytest.raises(StudioError, match=r"Unknown variant.*Available: sdxl"):
        recognize(str(sdxl()(tmp_path))).told(Parts(variant="flux-schnell"))


def saved(family, path):
    family.pipeline().save_pretrained(path, safe_serialization=True)
    return path


def test_another_autoencoder_takes_the_place_of_the_models_own(families, backend, tmp_path):
    folder = saved(families["sd1"], tmp_path / "model")
    other = {key: (value + 1).contiguous() for key, value in families["sd1"].vae.state_dict().items()}
    save_file(other, tmp_path / "vae.safetensors")
    family = load(str(folder), backend, parts=Parts(vae=str(tmp_path / "vae.safetensors")))
    assert all(torch.equal(value, other[key]) for key, value in family.vae.state_dict().items())


def test_a_text_encoder_goes_where_it_fits(families, backend, tmp_path):
    folder = saved(families["sd3"], tmp_path / "model")
    t5 = {
        key: value + 1 for key, value in families["sd3"].text_encoders["text_encoder_3"].state_dict().items()
    }
    save_file({"shared.weight": t5.pop("shared.weight")} | {k: v for k, v in t5.items() if "embed_tokens" not in k}, tmp_path / "t5.safetensors")  # fmt: skip
    parts = Parts(text_encoder=(str(tmp_path / "t5.safetensors"),))
    family = load(str(folder), backend, text=Text(t5_tokens=T5_TOKENS), parts=parts)
    found = family.text_encoders["text_encoder_3"].state_dict()
    assert all(torch.equal(found[key], value) for key, value in t5.items())
    with pytest.raises(StudioError, match="fits none of the model's: text_encoder"):
        load(
            str(folder),
            backend,
            parts=Parts(text_encoder=(str(folder / "vae" / "diffusion_pytorch_model.safetensors"),)),
        )


def test_an_autoencoder_that_is_not_there_is_refused(families, backend, tmp_path):
    folder = saved(families["sd1"], tmp_path / "model")
    with pytest.raises(StudioError, match=r"There is no nowhere; --parts\.vae takes"):
        load(str(folder), backend, parts=Parts(vae="nowhere"))


def test_files_of_a_variant_alone_are_read(families, backend, tmp_path):
    families["sd1"].pipeline().save_pretrained(tmp_path, variant="fp16")
    assert load(str(tmp_path), backend).fingerprint() == families["sd1"].fingerprint()


def test_a_prediction_that_was_told_is_what_a_folder_predicts(families, backend, tmp_path):
    folder = saved(families["sd1"], tmp_path / "model")
    assert load(str(folder), backend, parts=Parts(prediction="v_prediction")).prediction == "v"


class Deaf:
    unk_token_id, all_special_ids = 3, (0, 1, 2, 3)

    def __call__(self, prompt):
        return type("Words", (), {"input_ids": [2, *[3] * len(prompt.split())]})


def test_a_tokenizer_that_knows_no_word_is_refused(families):
    pipeline = families["sd1"].pipeline()
    pipeline.tokenizer = Deaf()
    with pytest.raises(StudioError, match="tokenizer takes every prompt for the same"):
        ready(pipeline)


def test_a_family_that_the_library_lacks_says_which_has_it():
    card = families.cards()["flux"]
    later = dataclasses.replace(card.recognize, pipelines=("Flux9Pipeline",))
    with pytest.raises(StudioError, match=r"FLUX\.1 needs diffusers 0\.99 or newer for its Flux9Pipeline"):
        check_library(dataclasses.replace(card, recognize=later, since="0.99"))


def test_the_page_of_checkpoints_is_what_happens():
    assert checkpoints.PLACE.read_text(encoding="utf-8") == checkpoints.page()


def test_a_request_carries_the_parts_to_the_model(families, tmp_path):
    folder = saved(families["sd1"], tmp_path / "model")
    asked = SampleRequest(
        prompt=("a dog",),
        model=str(folder),
        parts=Parts(prediction="v_prediction"),
        hardware=Hardware(device="cpu"),
    )
    assert infer.load(asked)[0].prediction == "v"


def test_what_a_file_lacks_comes_from_the_published_model_in_the_cache(families, tmp_path, monkeypatch):
    family, path = families["sd1"], tmp_path / "unet.safetensors"
    hub = tmp_path / "models--owner--name"
    saved(family, hub / "snapshots" / "abc")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    save_file(
        {key: (value + 1).contiguous() for key, value in original_layout.unet(family.denoiser).items()}, path
    )
    known = known_of(family, path, starts={"unet": ""}, lacks=("vae", "text_encoder"))
    known = dataclasses.replace(known, variant=dataclasses.replace(known.variant, hub="owner/name"))
    again = from_file(known, torch.float32, {})
    assert same(family.vae, again.vae)
    assert not same(family.denoiser, again.unet)
    (hub / "refs" / "main").unlink()
    with pytest.raises(
        StudioError, match=r"holds no vae, text_encoder, which owner/name has or give --parts\.vae"
    ):
        from_file(known, torch.float32, {})

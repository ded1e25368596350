"""Facts 5, 6, 12 and 19 of the published files, on every family that each touches: templates, schedulers, names of classes."""

import json
import re

import numpy as np
import pytest
from diffusers import UniPCMultistepScheduler
from transformers import AutoProcessor, AutoTokenizer

from studio.backend.core import Backend
from studio.catalog import families as catalog
from studio.catalog.noise import refused
from studio.catalog.recognize import recognize
from studio.models import language
from studio.models.build import load
from studio.models.schedulers import make_scheduler
from studio.settings.run import Hardware
from tests.models.test_cards import PUBLISHED, folder_of
from tests.models.test_published import whole

CPU = Hardware(device="cpu", precision="fp32")


def shifted(shift, times):
    return shift * times / (1 + (shift - 1) * times)


CARDS = pytest.mark.parametrize("card", catalog.cards().values(), ids=lambda card: card.name)
UNIPC = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


@CARDS
def test_a_flow_model_may_have_another_scheduler(card, tmp_path):
    """Fact 12: Sana's DPM-Solver and Wan's UniPC say `flow_prediction`; a DPM-Solver that says epsilon is no flow."""
    flow = {"_class_name": "UniPCMultistepScheduler", **UNIPC}
    epsilon = {"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "epsilon"}
    assert bool(refused(tmp_path, card, flow)) == (card.process != "flow")
    assert bool(refused(tmp_path, card, epsilon)) == (card.process == "flow")


@CARDS
def test_the_shift_of_another_scheduler_is_its_own(card):
    """Fact 12: UniPC and DPM-Solver say `flow_shift` where FlowMatch says `shift`."""
    if card.process != "flow":
        pytest.skip("it has no shift")
    family = load(f"tiny:{card.name}", Backend(CPU))
    family.scheduler_base = UniPCMultistepScheduler(**UNIPC)
    process, _ = family._noise()
    assert process.shift == pytest.approx(card.schedule.training_shift or 3.0)
    unit = card.schedule.sigmas == "unit"
    found = make_scheduler(family.scheduler_base.config, "", 4, prediction="flow", unit=unit)
    sigmas = np.asarray(found.sigmas[:-1], dtype=float)
    wanted = shifted(3.0, np.linspace(1, 0.25, 4)) if unit else None
    assert wanted is None or sigmas == pytest.approx(wanted, abs=1e-3)
    assert sigmas[1] > 0.85  # 0.75 and 0.667 without a shift


@CARDS
def test_a_folder_with_another_flow_scheduler_loads(card, tmp_path):
    """Fact 12, in a folder: what was saved with UniPC is read and drawn from with its shift."""
    if card.process != "flow":
        pytest.skip("it has no shift")
    pipeline = load(f"tiny:{card.name}", Backend(CPU)).pipeline()
    pipeline.register_modules(scheduler=UniPCMultistepScheduler(**UNIPC))
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    family = load(str(tmp_path), Backend(CPU))
    assert family.process.shift == pytest.approx(card.schedule.training_shift or 3.0)


@CARDS
def test_an_index_names_the_classes_that_are_built(card):
    """Fact 19: PixArt-Sigma's index names a class that the library replaces; no family's does."""
    for variant in card.variants:
        folder = folder_of(variant)
        if folder is None:
            pytest.skip("its files are not here")
        index = json.loads((folder / "model_index.json").read_text())
        for name, part in variant.architecture.items():
            assert index[name][1] == part.cls, (variant.name, name)
            file = folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json")
            own = json.loads(file.read_text()).get("_class_name", part.cls)
            assert own == part.cls, (variant.name, name)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not here")
@pytest.mark.parametrize("name", ["pixart/PixArt-Sigma-XL-2-1024-MS", "sana/Sana_1600M_1024px_diffusers"])
def test_a_pipeline_that_no_family_has_is_one_sentence(name):
    """Facts 12 and 19."""
    assert re.search(
        r"Unknown kind of pipeline in .*(PixArtSigma|Sana)Pipeline", recognize(str(PUBLISHED / name)).refusal
    )


class Read(Exception):
    """What was going to be read."""


def rendered(card, folder, monkeypatch, prompt):
    """A prompt in the template of a family that reads with a language model, by the published tokenizer."""

    def stop(tokenizer, prompts, reading):
        raise Read(reading.render(prompts[0]))

    monkeypatch.setattr(language, "_tokens", stop)
    family = load(f"tiny:{card.name}", Backend(CPU))
    family.tokenizers = {key: published_words(folder, key) for key in family.tokenizers}
    with pytest.raises(Read) as found:
        family.embed([prompt])
    return str(found.value)


def published_words(folder, key):
    """A tokenizer of a published folder, or the one inside of its processor."""
    if key != "processor" and (folder / key).is_dir():
        return AutoTokenizer.from_pretrained(folder / key)
    found = AutoProcessor.from_pretrained(folder / "processor")
    return found if key == "processor" else found.tokenizer


PROMPT = "a photo of sks dog"
THINKS = {"flux2-klein": "<think>\n\n</think>\n\n"}
"""Facts 5 and 6: what Qwen3's template writes behind `assistant` where thinking is off, as klein's pipeline has it."""


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not here")
@CARDS
def test_a_prompt_stands_in_the_template_of_its_published_tokenizer(card, tmp_path, monkeypatch):
    """Facts 5 and 6: a message in the wrong form comes out empty, and the empty thought is written where it belongs."""
    if card.words.weights:
        pytest.skip("it reads with CLIP and T5, without a template")
    published = next(filter(None, map(folder_of, card.variants)))
    folder = whole(PUBLISHED, published, tmp_path / "model")
    if not any(file.name.startswith(("tokenizer.json", "vocab")) for file in folder.rglob("*")):
        pytest.skip("its vocabulary is not here")
    text = rendered(card, folder, monkeypatch, PROMPT)
    assert text.count(PROMPT) == 1
    after = text.partition(PROMPT)[2]
    assert after == f"<|im_end|>\n<|im_start|>assistant\n{THINKS.get(card.name, '')}"

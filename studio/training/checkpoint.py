"""Checkpoints: written whole or not at all, checked by hash, resumed exactly. No pickle.

checkpoints/step-00000100/weights.safetensors   the tensors of all groups, as `group/tensor`
                          state.safetensors     tensors of optimizer, average, trainer
                          state.json            the rest of their state, with references to the tensors
                          manifest.json         step, settings, sha256 of each file; written last
            damaged-step-00000200/              what a resumed run found damaged, and trains again
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.backend.sharding import laid_out_as, whole
from studio.contracts.trainer import Group
from studio.errors import RunFailed, StudioError
from studio.records.runs import saved, write_text

log = logging.getLogger(__name__)
_FILES = ("state.json", "state.safetensors", "weights.safetensors")
_TEMPORARY = re.compile(r"\.step-\d{8,}\.\d+\.tmp")


def pack(value: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Nested state as JSON; its tensors go into `tensors` and leave a reference."""
    if isinstance(value, Tensor):
        tensors[path] = whole(value.detach()).cpu().contiguous().clone()
        return {"__tensor__": path}
    if isinstance(value, dict):
        items = [[k, pack(v, tensors, f"{path}/{k}")] for k, v in value.items()]
        return {"__dict__": items}  # a list of pairs keeps integer keys, which optimizers use
    if isinstance(value, (list, tuple)):
        items = [pack(v, tensors, f"{path}/{i}") for i, v in enumerate(value)]
        return {"__tuple__": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"state at {path!r} is a {type(value).__name__}; only tensors, numbers and text are saved"
    )


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `pack`."""
    if isinstance(value, list):
        return [unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "__tensor__" in value:
        return tensors[value["__tensor__"]]
    if "__tuple__" in value:
        return tuple(unpack(v, tensors) for v in value["__tuple__"])
    return {k: unpack(v, tensors) for k, v in value["__dict__"]}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _fill(folder: Path, weights: dict[str, Tensor], tensors: dict[str, Tensor], packed: Any) -> None:
    folder.mkdir(parents=True)
    save_file(weights, folder / "weights.safetensors")
    save_file(tensors, folder / "state.safetensors")
    (folder / "state.json").write_text(json.dumps(packed), encoding="utf-8")
    for path in folder.iterdir():
        _sync(path)


def save(
    root: Path,
    step: int,
    groups: Sequence[Group],
    state: dict[str, Any],
    config: dict[str, Any],
    *,
    writes: bool = True,
) -> Path:
    """Write a checkpoint into a temporary folder, sync it, and rename it into place.

    Where tensors are spread over processes, all call this with the same arguments, and the one that `writes` writes.

    Raises:
        RunFailed: the disk is full or not writable; nothing half-written stays, older checkpoints are untouched.
    """
    final = root / f"step-{step:08d}"
    temporary = root / f".{final.name}.{os.getpid()}.tmp"
    weights = {
        f"{g.name}/{k}": whole(v.detach()).cpu().contiguous().clone()
        for g in groups
        for k, v in g.tensors().items()
    }
    tensors: dict[str, Tensor] = {}
    packed = pack(state, tensors)
    if not writes:
        return final
    try:
        _fill(temporary, weights, tensors, packed)
        manifest = {
            "step": step,
            "config": config,
            "sha256": {name: _sha256(temporary / name) for name in _FILES},
        }
        write_text(temporary / "manifest.json", json.dumps(manifest))
        _sync(temporary)
        set_aside(final)  # a run that loaded another step found this one damaged, or never saw it
        temporary.rename(final)
        _sync(root)
    except (OSError, SafetensorError) as error:
        raise RunFailed(
            f"Checkpoint of step {step} could not be written to {str(root)!r} ({error}); free some space or choose "
            "another --output. Older checkpoints are untouched."
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def rotate(root: Path, keep: int, protect: Sequence[int] = ()) -> None:
    """Delete the oldest checkpoints beyond `keep`; only folders that `save` wrote, never a protected step."""
    ours = [path for path in saved(root).values() if (path / "manifest.json").exists()]
    for path in ours[:-keep]:
        if step_of(path) not in protect:
            shutil.rmtree(path)


def sweep(root: Path) -> None:
    """Remove what a killed save left behind."""
    for path in root.glob(".step-*"):
        if _TEMPORARY.fullmatch(path.name):
            shutil.rmtree(path)


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.name.removeprefix("step-"))


def set_aside(path: Path) -> None:
    """Give a checkpoint that cannot be used a name under which nothing looks for it: the next one takes its place."""
    if not os.path.lexists(path):
        return
    aside = path.with_name(f"damaged-{path.name}")
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)
    path.rename(aside)


def damage(path: Path) -> str:
    """What is wrong with a checkpoint; empty if its files are what was written."""
    try:
        digests = manifest(path)["sha256"]
        bad = [name for name in _FILES if _sha256(path / name) != digests[name]]
    except (OSError, ValueError) as error:
        return str(error)
    return f"{', '.join(bad)} changed after writing" if bad else ""


def latest(root: Path) -> Path | None:
    """The newest sound checkpoint; damaged ones are named in a warning and left alone."""
    for path in reversed(saved(root).values()):
        if not (reason := damage(path)):
            return path
        log.warning("checkpoint %s is damaged (%s); looking for an older one", path, reason)
    return None


def newest(root: Path) -> Path:
    """The newest checkpoint, which an export is of; an older one would be another result.

    Raises:
        StudioError: There is none, or it is damaged.
    """
    path = next(reversed(saved(root).values()), None)
    if path is None:
        raise StudioError(f"Run {str(root.parent)!r} has no checkpoint; train it first.", field="run")
    if reason := damage(path):
        raise StudioError(
            f"Checkpoint {str(path)!r} is damaged ({reason}); resume the run, which trains its steps again, or remove "
            "that folder to take the checkpoint before it.",
            field="run",
        )
    return path


def manifest(path: Path) -> dict[str, Any]:
    """Step, settings and hashes of a checkpoint.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not what `save` writes.
    """
    try:
        found = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except RecursionError:
        found = None
    hashes = found.get("sha256") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(hashes, dict) or sorted(hashes) != sorted(_FILES):
        raise ValueError("manifest.json does not name the files of a checkpoint")
    if found.get("step") != step_of(path):
        raise ValueError(f"manifest.json is of step {found.get('step')!r}")
    return found


def read_state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint, as `save` took it."""
    return unpack(
        json.loads((path / "state.json").read_text(encoding="utf-8")), load_file(path / "state.safetensors")
    )


@torch.no_grad()
def restore_weights(path: Path, groups: Sequence[Group]) -> None:
    """Copy the saved tensors into the groups; every name and shape must match."""
    saved = load_file(path / "weights.safetensors")
    wanted = {f"{g.name}/{k}": v for g in groups for k, v in g.tensors().items()}
    if wanted.keys() != saved.keys():
        odd = sorted(wanted.keys() ^ saved.keys())
        raise StudioError(
            f"Checkpoint {str(path)!r} does not fit these settings: {len(odd)} tensors differ, such as {odd[0]!r}; "
            "resume with the settings it was made with."
        )
    for key, tensor in wanted.items():
        if tensor.shape != saved[key].shape:
            raise StudioError(
                f"Checkpoint {str(path)!r} does not fit: {key!r} is {tuple(saved[key].shape)} there and "
                f"{tuple(tensor.shape)} here; resume with the settings it was made with."
            )
        tensor.copy_(laid_out_as(saved[key], tensor))

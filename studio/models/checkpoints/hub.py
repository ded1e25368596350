"""What is taken from the hub of a model: its settings, its words, and one variant of its weights."""

import logging
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,  # its library's: the hub cannot be reached
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from studio.catalog import families
from studio.catalog.model_folder import NOT_NEEDED, WEIGHTS
from studio.catalog.recognize import HUB_NAME
from studio.errors import StudioError

log = logging.getLogger(__name__)

_SETTINGS = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Endings of settings, vocabularies and chat templates."""


def hub_folder(
    name: str, revision: str = "", *, only: Collection[str] | None = None, half: bool = False
) -> Path:
    """The local folder of a hub name, downloaded first where it is not cached.

    Args:
        name: Such as owner/name.
        revision: Branch, tag or commit; empty for the newest.
        only: Components whose weights are needed; None for all.
        half: Take fp16 files where there are some, as everything is read in fp16 anyhow.

    Raises:
        StudioError: It is neither cached nor reachable, does not exist, or its license was not accepted.
    """
    if not HUB_NAME.match(name):
        raise StudioError(f"{name!r} is no hub name; give one such as owner/name.", field="model")
    _check_license(name)
    options: dict[str, Any] = {"revision": revision or None}
    try:
        if constants.HF_HUB_OFFLINE:
            return Path(snapshot_download(name, local_files_only=True, **options))
        try:
            found = HfApi().model_info(name, **options)
        except (HTTPError, OfflineModeIsEnabled) as error:
            if isinstance(error, HfHubHTTPError):
                raise
            return Path(snapshot_download(name, local_files_only=True, **options))
        listed = [file.rfilename for file in found.siblings or ()]
        return Path(snapshot_download(name, allow_patterns=taken(listed, only, half=half), **options))
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        raise StudioError(
            f"Model {name!r} is not in the local cache ({constants.HF_HUB_CACHE}) and {why}; give a folder or a "
            ".safetensors file, or download it first.",
            field="model",
        ) from error
    except GatedRepoError as error:
        raise _gated(name, "its license") from error
    except (RepositoryNotFoundError, HfHubHTTPError) as error:
        raise StudioError(
            f"Model {name!r} cannot be read from the hub ({first_line(error)}); check the name, and log in with "
            "`hf auth login` if it is gated.",
            field="model",
        ) from error


def taken(files: Iterable[str], only: Collection[str] | None = None, *, half: bool = False) -> list[str]:
    """Which files of a repository are downloaded: settings and words of all parts, and one variant of the weights.

    Args:
        files: Their paths in the repository.
        only: Components whose weights are needed; None for all.
        half: Prefer the fp16 variant.
    """
    inside = [Path(file) for file in files if "/" in file and Path(file).parts[0] not in NOT_NEEDED]
    chosen = [file for file in inside if file.suffix in _SETTINGS]
    weights = {file: match for file in inside if (match := WEIGHTS.match(file.name)) and len(file.parts) == 2}
    for folder in sorted({file.parent for file in weights}):
        if only is not None and folder.name not in only:
            continue
        own = {f: m["before"] or m["after"] or "" for f, m in weights.items() if f.parent == folder}
        names = set(own.values())
        best = "fp16" if half and "fp16" in names else "" if "" in names else min(names)
        chosen += [file for file, variant in own.items() if variant == best]
    return ["model_index.json", *(str(file) for file in chosen)]


def _check_license(name: str) -> None:
    """Say what a model's license asks before anything of it is downloaded.

    Raises:
        StudioError: It has to be accepted first, and nobody is logged in.
    """
    known = families.by_name(name)
    cached = isinstance(try_to_load_from_cache(name, "model_index.json"), str)
    if known is None or cached:
        return
    variant = known[1]
    if variant.gated and get_token() is None and not constants.HF_HUB_OFFLINE:
        raise _gated(name, f"its license ({variant.license})")
    if variant.license:
        log.info("%s has the license %s: https://huggingface.co/%s.", variant.title, variant.license, name)


def _gated(name: str, terms: str) -> StudioError:
    return StudioError(
        f"Model {name!r} is gated: accept {terms} at https://huggingface.co/{name}, then log in with `hf auth login`; "
        "or give a folder or a .safetensors file of it.",
        field="model",
    )


def first_line(error: Exception) -> str:
    """The first line of what an error says, without its full stop."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__

"""A LoRA that a model is trained under and drawn without: distilled bases keep their few steps (ai-toolkit, SimpleTuner).

A plain finetuning of Turbo or schnell teaches the model its many-step behavior back. Under a de-distilling adapter, which has
that behavior already, what is learned is the subject alone; with the adapter off again, the base draws it in few steps.
"""

import logging
import re
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, list_repo_files
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from studio.adapters.strength import ASSISTANT, assisting
from studio.diffusion.config import Denoising
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.presence import unwrap
from studio.weights import artifacts

log = logging.getLogger(__name__)
_HUB = re.compile(r"^[\w.-]+/[\w.-]+(/[\w./-]+\.safetensors)?$")
"""owner/name, or owner/name/file.safetensors, as ai-toolkit writes it."""


def assisted(family: Family, settings: Denoising) -> Family:
    """The family with its assistant, which acts around losses alone; as it is where the settings name none.

    Raises:
        StudioError: Nothing is there, or it fits no layer of the denoiser.
    """
    if not settings.assistant:
        return family
    path = _found(settings.assistant)
    artifacts.load(path, family, name=ASSISTANT)
    family.backend.around_losses(lambda: assisting(unwrap(family.denoiser)))
    log.info("assistant %s: acts in the loss alone, not in pictures and exports", path)
    return family


def _found(given: str) -> Path:
    """The file or folder of an assistant; one on the hub is fetched."""
    path = Path(given).expanduser()
    if path.exists() or not _HUB.match(given):
        return path
    name, file = "/".join(given.split("/")[:2]), "/".join(given.split("/")[2:])
    try:
        return Path(hf_hub_download(name, file or _only(name), local_files_only=constants.HF_HUB_OFFLINE))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError) as error:
        raise StudioError(
            f"Assistant {given!r} is no file here and cannot be read from the hub ({type(error).__name__}); give the file of a "
            "LoRA, or owner/name/file.safetensors.",
            field="denoising.assistant",
        ) from error


def _only(name: str) -> str:
    """The one file of weights in a repository."""
    found = [file for file in list_repo_files(name) if file.endswith(".safetensors")]
    if len(found) != 1:
        raise StudioError(
            f"Assistant {name!r} has {len(found)} files of weights ({', '.join(found)}); name one: {name}/FILE.",
            field="denoising.assistant",
        )
    return found[0]

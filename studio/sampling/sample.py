"""The sampling use-case for Python: pictures, or a diffusers pipeline, with what was trained put on."""

import dataclasses
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from studio.adapters.merge import merged_copy
from studio.errors import StudioError
from studio.records import places
from studio.sampling import infer
from studio.sampling.infer import Sampled
from studio.settings import serial
from studio.settings.sampling import SampleRequest


def sample(request: SampleRequest | None = None, **settings: Any) -> Sampled:
    """Draw pictures, as `studio sample` does; they are written too, each with the recipe that draws it again.

        studio.sample(artifact="runs/dog", prompt="a photo of sks dog on the moon").images[0]

    Args:
        request: What to draw.
        settings: The same by name, in place of a request; one value stands for a list of one.

    Returns:
        `images` (PIL), prompt by prompt; `paths`, their files; `grid`, the file of all as one; `request`, with model,
        sampler and size filled in.

    Raises:
        StudioError: A setting is wrong, or something that it names is not there.
    """
    return infer.run(_request(request, settings))


def pipeline(artifact: str | Path = "", *, strength: float = 1.0, **settings: Any) -> DiffusionPipeline:
    """A plain diffusers pipeline with a trained artifact folded into its weights, to draw from, to save or to take apart.

        pipe = studio.pipeline("runs/dog")
        pipe("a photo of sks dog on the moon").images[0]

    Args:
        artifact: A run, a file or folder of trained weights, or an embedded artifact; empty gives the model alone.
        strength: Of the artifact; 0 is the base model, 1 as trained.
        settings: `model`, `hardware` and `text`, as `studio sample` takes them.

    Raises:
        StudioError: The artifact is not there, or draws by code of its own that a pipeline has no place for.
    """
    own = {"artifact": (str(artifact),), "strength": (strength,)} if artifact else {}
    request = _request(None, {"prompt": ("any",), **own, **settings})
    family, edits = infer.load(request)
    if edits:
        raise StudioError(
            f"{artifact} changes sampling by code of its own, which a diffusers pipeline has no place for; draw with "
            "studio.sample(artifact=...).",
            field="artifact",
        )
    made = family.pipeline()
    made.register_modules(**{key: merged_copy(module) for key, module in family.modules().items()})
    return made


def _request(request: SampleRequest | None, settings: dict[str, Any]) -> SampleRequest:
    """A request by its settings, where none is given; artifacts are found as the command finds them."""
    if request is None:
        lists = {
            name for name, annotation in serial.hints(SampleRequest).items() if serial.is_list(annotation)
        }
        listed = {
            n: (v,) if n in lists and isinstance(v, (str, int, float, Path)) else v
            for n, v in settings.items()
        }
        request = serial.from_dict(
            SampleRequest, {name: serial.plain(value) for name, value in listed.items()}
        )
    elif settings:
        raise TypeError("give a request, or its settings by name")
    found = tuple(places.artifact(path) for path in request.artifact)
    return dataclasses.replace(request, artifact=found)

"""The recipe inside a picture: how it was drawn, written into the PNG and read back. No torch.

Two text fields: `parameters`, as AUTOMATIC1111 and its kin write and read, and `studio`, one JSON object that
re-creates the request exactly.
"""

import dataclasses
import json
import math
import os
import re
import struct
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from studio.errors import StudioError
from studio.settings import serial
from studio.settings.sampling import SampleRequest

SAMPLERS = {"ddim": "DDIM", "ddpm": "DDPM", "euler": "Euler", "euler_a": "Euler a", "heun": "Heun", "lms": "LMS",
            "pndm": "PLMS", "lcm": "LCM", "dpm++": "DPM++ 2M", "dpm++_karras": "DPM++ 2M Karras",
            "dpm++_sde": "DPM++ 2M SDE", "unipc": "UniPC", "flow-euler": "Euler", "flow-heun": "Heun",
            "flow-dpm++": "DPM++ 2M", "flow-unipc": "UniPC"}  # fmt: skip
"""What others call our schedulers."""
_PAIR = re.compile(r'\s*([\w ]+):\s*("(?:\\.|[^"])*"|[^,]*)(?:,|$)')


def one(request: SampleRequest, prompt: str, seed: int, size: tuple[int, int]) -> SampleRequest:
    """The request that draws one of a request's pictures alone."""
    width, height = size
    return dataclasses.replace(request, prompt=(prompt,), num_images=1, seed=seed, width=width, height=height)


def parameters(request: SampleRequest) -> str:
    """A single picture's recipe in AUTOMATIC1111's text form."""
    facts = {
        "Steps": request.steps,
        "Sampler": SAMPLERS.get(request.scheduler, request.scheduler),
        "CFG scale": "" if request.guidance is None else f"{request.guidance:g}",
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": request.model,
    }
    if request.text.clip_skip:
        facts["Clip skip"] = request.text.clip_skip + 1
    loaded = zip(request.artifact, request.strengths(), strict=True)
    words = "".join(f" <lora:{Path(path).stem}:{strength:g}>" for path, strength in loaded)
    lines = [request.prompt[0] + words, f"Negative prompt: {request.negative}" if request.negative else ""]
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in facts.items() if value != ""))
    return "\n".join(line for line in lines if line)


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text) if any(mark in text for mark in ',:\n"') else text


def write(path: Path, picture: Image.Image, request: SampleRequest, *, fingerprint: str = "") -> None:
    """Write a picture as a PNG with its recipe; whole, or not at all.

    Args:
        path: File to write, in a folder that exists.
        picture: The picture.
        request: The request of this one picture (see `one`).
        fingerprint: Hash of the base model's weights.
    """
    values = {
        "studio": version("finetuning-studio"),
        "fingerprint": fingerprint,
        "request": serial.to_dict(request),
    }
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", parameters(request))
    info.add_text("studio", json.dumps(values))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        picture.save(temporary, format="PNG", pnginfo=info)
        temporary.replace(path)
    except OSError as error:
        raise StudioError(
            f"Cannot write {str(path)!r} ({error.strerror or error}); choose another --output.",
            field="output",
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> SampleRequest:
    """The request that draws a picture again: exact if we drew it, else as far as its `parameters` tell.

    Raises:
        StudioError: It is no picture, or carries no recipe.
    """
    try:
        with Image.open(path) as picture:
            fields = {str(key): value for key, value in picture.info.items() if isinstance(value, str)}
    except FileNotFoundError:
        raise StudioError(
            f"There is no file {str(path)!r}; --recipe takes a PNG drawn here.", field="recipe"
        ) from None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise StudioError(
            f"{str(path)!r} cannot be read as a picture ({error}); give a PNG.", field="recipe"
        ) from None
    if "studio" in fields:
        try:
            values = json.loads(fields["studio"])["request"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise StudioError(
                f"The recipe in {str(path)!r} is damaged; give another picture.", field="recipe"
            ) from None
        return serial.from_dict(SampleRequest, values)
    if "parameters" in fields:
        return from_parameters(fields["parameters"])
    raise StudioError(f"{str(path)!r} carries no recipe; give a PNG drawn here or by AUTOMATIC1111.")


def from_parameters(text: str) -> SampleRequest:
    """A request from AUTOMATIC1111's text form; what has no counterpart here is left out."""
    lines = text.strip().split("\n")
    tail = lines.pop() if re.match(r"\s*Steps:", lines[-1]) else ""
    facts = {key.strip().lower(): _unquoted(value) for key, value in _PAIR.findall(tail)}
    prompt, _, negative = "\n".join(lines).partition("Negative prompt:")
    width, _, height = facts.get("size", "0x0").partition("x")
    guidance = facts.get("cfg scale")
    names = {name.lower(): ours for ours, name in reversed(SAMPLERS.items())}
    return SampleRequest(
        prompt=(re.sub(r"\s*<lora:[^>]*>", "", prompt).strip(),),
        negative=negative.strip(),
        steps=int(_number("Steps", facts.get("steps", "0"))),
        guidance=None if guidance is None else _number("CFG scale", guidance),
        seed=int(_number("Seed", facts.get("seed", "0"))),
        width=int(_number("Size", width)),
        height=int(_number("Size", height)),
        model=facts.get("model", ""),
        scheduler=names.get(facts.get("sampler", "").lower(), ""),
    )


def _number(name: str, text: str) -> float:
    try:
        found = float(text) if "." in text else int(text)
        if math.isfinite(found):
            return found
    except (ValueError, OverflowError):
        pass
    raise StudioError(
        f"The recipe says {name} {text[:40]!r}, which is no number; mend it there.", field="recipe"
    )


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value.strip()
    except ValueError:
        return value.strip()

"""What a safetensors file says of itself, read from its first bytes: names, dtypes and shapes of its tensors. No torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from studio.errors import StudioError

_LARGEST = 100_000_000
"""Bytes; the format allows no longer header."""


@dataclass(frozen=True)
class Header:
    """The header of a file.

    Attributes:
        shapes: Shape of each tensor.
        dtypes: Dtype of each tensor in the format's words: F16, BF16, F8_E4M3.
        metadata: What its writer said of it, such as `modelspec.architecture`.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]

    def has(self, *starts: str) -> bool:
        """Whether a key begins with one of these."""
        return any(key.startswith(starts) for key in self.shapes)


def read(file: Path) -> Header:
    """The header of a safetensors file.

    Raises:
        StudioError: It is not there, is no such file, or its end is cut off.
    """
    if not file.is_file():
        raise StudioError(f"There is no file {file}; check the path.", field="model")
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if not 0 < length <= min(_LARGEST, size - 8):
                raise damaged(file, "it begins with no header")
            found = json.loads(opened.read(length))
        metadata = found.pop("__metadata__", {})
        end = max((_number(tensor["data_offsets"][1]) for tensor in found.values()), default=0)
        shapes = {key: tuple(map(_number, tensor["shape"])) for key, tensor in found.items()}
        dtypes = {key: _word(tensor["dtype"]) for key, tensor in found.items()}
        said = {key: _word(value) for key, value in metadata.items()}
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise damaged(file, "its header cannot be read") from error
    if end != size - 8 - length:
        raise damaged(file, f"it has {size - 8 - length} bytes of tensors where its header lists {end}")
    return Header(shapes, dtypes, said)


def _number(value: object) -> int:
    """A size or a place, as the format has them."""
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def damaged(file: Path, why: str) -> StudioError:
    """What to say of a file that is not whole."""
    return StudioError(
        f"{file} is not a whole safetensors file ({why}); copy or download it again.", field="model"
    )

"""What DECOR removes, as a thing that is fitted once, saved with an adapter and applied to any embedding.

Axes: `b` prompts, `l` rows, `d` width (in SDXL two encoders side by side: two blocks), `r` directions.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from studio.errors import StudioError
from trainers.decor.projection import project_out

FORMAT = "studio-decor"


@dataclass(frozen=True)
class Projector:
    """Directions to take out, one matrix an encoder's block of a row.

    Attributes:
        blocks: Orthonormal directions (d r) of each block, in the order of the row.
        undesired: The words they come from.
        encoders: Fingerprint of the text encoders' base weights.
    """

    blocks: tuple[Float[Tensor, "d r"], ...]
    undesired: tuple[str, ...] = ()
    encoders: str = ""

    def slices(self) -> list[slice]:
        """Each block's place in a row."""
        ends = [sum(len(v) for v in self.blocks[: i + 1]) for i in range(len(self.blocks))]
        return [slice(end - len(v), end) for end, v in zip(ends, self.blocks, strict=True)]

    def __call__(
        self, tokens: Float[Tensor, "b l d"], rows: Bool[Tensor, "b l"], strength: float
    ) -> Float[Tensor, "b l d"]:
        """X (I - alpha P) for the chosen rows; the others bit for bit."""
        changed = tokens.clone()
        for block, v in zip(self.slices(), self.blocks, strict=True):
            own = tokens[..., block]
            new = project_out(own, v.to(own.device), strength)
            changed[..., block] = torch.where(rows.unsqueeze(-1), new, own)
        return changed

    def save(self, path: Path) -> None:
        """Write it, to keep it with an adapter."""
        tensors = {f"block_{i}": v.contiguous() for i, v in enumerate(self.blocks)}
        told = {"format": FORMAT, "undesired": json.dumps(self.undesired), "encoders": self.encoders}
        save_file(tensors, path, told)


def load_projector(path: Path) -> Projector:
    """What `Projector.save` wrote.

    Raises:
        StudioError: It is another kind of file, or none.
    """
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            blocks = [
                file.get_tensor(f"block_{i}") for i in range(len(file.keys())) if told.get("format") == FORMAT
            ]
    except (OSError, SafetensorError) as error:
        raise StudioError(f"Cannot read the projector {str(path)!r} ({error}).", field="saved") from None
    if not blocks:
        raise StudioError(f"{str(path)!r} holds no projector; `studio decor save` writes one.", field="saved")
    return Projector(tuple(blocks), tuple(json.loads(told["undesired"])), told["encoders"])

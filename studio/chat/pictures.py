"""How large a chat model sees pictures: the most pixels, in the terms of whatever its picture processor declares.

| declared | what it means | of |
| --- | --- | --- |
| `merge_size` | `size.longest_edge` is the most pixels of a picture | Qwen-VL |
| `image_grid_pinpoints` | sizes that a picture is cut into tiles of | LLaVA-NeXT, OneVision |
| `max_patches` | most tiles of `size` | InternVL |
| `max_image_size` | a tile; `size.longest_edge` is a picture's side | Idefics3, SmolVLM |

Processors without any of these show every picture in one size (LLaVA-1.5, PaliGemma, Gemma 3): nothing is to be limited.
"""

import math
from typing import Any

from studio.errors import StudioError


def limit(processor: Any, config: Any, max_pixels: int) -> None:
    """Let pictures have at most so many pixels; what already has fewer stays as it is.

    Args:
        processor: The picture processor, changed in place; it is saved so.
        config: The network's, which has the sizes of tiles a second time.
        max_pixels: Most pixels of a picture; 0 leaves the processor's own.

    Raises:
        StudioError: It is less than one tile, or than the smallest picture.
    """
    if not max_pixels:
        return
    size = processor.size
    if getattr(processor, "merge_size", None):
        _least(max_pixels, size["shortest_edge"])
        processor.size = {**dict(size), "longest_edge": min(size["longest_edge"], max_pixels)}
    elif sizes := getattr(processor, "image_grid_pinpoints", None):
        _least(max_pixels, min(height * width for height, width in sizes))
        kept = [list(each) for each in sizes if each[0] * each[1] <= max_pixels]
        processor.image_grid_pinpoints = config.image_grid_pinpoints = kept
    elif most := getattr(processor, "max_patches", None):
        tile = size["height"] * size["width"]
        _least(max_pixels, tile)
        processor.max_patches = min(most, max_pixels // tile)
    elif tile := (getattr(processor, "max_image_size", None) or {}).get("longest_edge"):
        _least(max_pixels, tile * tile)
        side = tile * int(math.sqrt(max_pixels) // tile)
        processor.size = {**dict(size), "longest_edge": min(size["longest_edge"], side)}


def _least(max_pixels: int, smallest: int) -> None:
    if max_pixels < smallest:
        raise StudioError(
            f"max_pixels {max_pixels} is less than the smallest picture of this model, {smallest} pixels; give at least that, or 0 for "
            "what the model was made for.",
            field="max_pixels",
        )

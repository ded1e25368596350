"""Does style injection keep the structure and move the style, where a mixture or statistics alone do not?"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from studio.evidence.reproduce import Cell, Recipe, Reproduce, Result
from studio.evidence.subjects import weights_of

MODEL = "studio-tiny"
STEPS, REFINE = 12, 2
CONTENTS = ("cat", "car", "pizza", "guitar", "owl")
STYLES = ("brick", "night sky")
WAYS: dict[str, dict[str, Any]] = {
    "reconstruction": {"begin": "content", "share": 0.0},
    "plain mixture": {"begin": "mixture", "share": 0.0},
    "AdaIN only": {"begin": "adain", "share": 0.0},
    "injection, 0.75": {},
    "injection, 0.3": {"preserve": 0.3},
}
"""Ways to draw: the content back, half of both noises, the style's statistics, and the paper's two settings."""


def _cells(request: Reproduce) -> Sequence[Cell]:
    taken = CONTENTS[: request.num_units or None]
    return [
        Cell(
            variant=way,
            unit=content,
            seed=seed,
            settings={
                "way": WAYS[way], "content": content, "styles": STYLES, "steps": STEPS, "refine": REFINE, "seed": seed,
                "weights": weights_of(MODEL),
            },
        )
        for seed in range(request.num_seeds)
        for content in taken
        for way in WAYS
    ]  # fmt: skip


def _run(cell: Cell, folder: Path) -> Result:
    """Draw a content in every style one way."""
    import time

    from studio.contracts.sampling import Request
    from studio.models.draw import draw
    from trainers.style_injection.config import StyleInjection

    settings, drawn, scores = cell.settings, {}, []
    start, seed = time.monotonic(), int(settings["seed"])
    content = folder / "content.png"
    _scene(settings["content"], seed).save(content)
    for number, kind in enumerate(settings["styles"]):
        style = folder / f"style-{number}.png"
        _background(kind, seed).save(style)
        way = StyleInjection(content=str(content), style=str(style), refine=REFINE, **settings["way"])
        edit = _inverted(settings["content"], kind, seed, content, style).again(way)
        request = Request(prompts=["a picture"], steps=STEPS, guidance=1.0, edits=(edit,), scheduler="ddim")
        image = draw(_family(), request)[0]
        file = folder / f"{number}.png"
        image.save(file)
        drawn[kind] = [str(file)]
        scores.append(_scores(image, content, style))
    pictures = {"Content": [str(content)], f"in {STYLES[0]}": drawn[STYLES[0]]}
    pictures |= {f"True style {STYLES[0]}": [str(folder / "style-0.png")]}
    return Result(
        measures={key: (None, sum(s[key] for s in scores) / len(scores)) for key in scores[0]},
        seconds=time.monotonic() - start,
        pictures=pictures,
        facts={
            "base model": f"{MODEL} {settings['weights']}",
            "drawing": f"{len(STYLES)} styles a content ({', '.join(STYLES)}), {STEPS} DDIM steps, no guidance",
        },
    )


def _scene(name: str, seed: int) -> Any:
    """A sticker on one color."""
    import torch
    from PIL import Image

    from studio.data.sticker_config import Stickers
    from studio.data.stickers import compose, names, plan_scenes

    settings = Stickers(textured=0, gradient=0, centered=1.0)
    plan = plan_scenes(settings, 1, torch.Generator().manual_seed(seed))
    plan.concepts.fill_(names(settings.num_concepts).index(name))
    return Image.fromarray(((compose(plan, settings).images[0].movedim(0, -1) + 1) * 127.5).byte().numpy())


def _background(kind: str, seed: int) -> Any:
    """A texture without an object."""
    import torch
    from PIL import Image

    from studio.data.sticker_backgrounds import NUM_NUMBERS, SIZE, paint
    from studio.data.stickers import load_photos

    generator = torch.Generator().manual_seed(seed)
    numbers, noise = (
        torch.rand(1, NUM_NUMBERS, generator=generator),
        torch.rand(1, 1, SIZE, SIZE, generator=generator),
    )
    painted = paint(kind, torch.zeros(1, 2, 3), numbers, noise, load_photos())[0]
    return Image.fromarray((painted.movedim(0, -1).clamp(0, 1) * 255).byte().numpy())


def _scores(image: Any, content: Path, style: Path) -> Mapping[str, float]:
    """What stayed of the content's edges, and how far the colors are from the style's."""
    from studio.data.images import read
    from trainers.style_injection.measures import color_distance, structure

    given, wanted = read(content).rgb, read(style).rgb
    return {
        "structure kept": structure(image, given),
        "color distance to the style": color_distance(image, wanted),
    }


_INVERTED: dict[tuple[str, str, int], Any] = {}


def _inverted(name: str, kind: str, seed: int, content: Path, style: Path) -> Any:
    """The edit of a pair of pictures: all ways of drawing it share one inversion, which is kept while they last."""
    from studio.contracts.sampling import Request
    from trainers.style_injection.config import StyleInjection
    from trainers.style_injection.edit import StyleInjectionEdit

    if (name, kind, seed) not in _INVERTED:
        settings = StyleInjection(content=str(content), style=str(style), refine=REFINE)
        edit, side = StyleInjectionEdit(settings, _family()), _family().default_size
        request = Request(steps=STEPS, guidance=1.0, width=side, height=side, scheduler="ddim")
        edit.begin(request, _family().scheduler("ddim", STEPS))
        _INVERTED[name, kind, seed] = edit
    return _INVERTED[name, kind, seed]


@cache
def _family() -> Any:
    from studio.backend.core import Backend
    from studio.models import build
    from studio.settings.run import Hardware

    return build.load(MODEL, Backend(Hardware(device="cpu")))


RECIPE = Recipe(
    title="Style injection on the embedded model",
    question=(
        "Stickers are redrawn in the style of textures. Structure kept: correlation of the edges' strength with the "
        "content's (1: all of it). Color distance: sliced Wasserstein distance of the pixels' colors to the style's "
        "(0: its colors). The reconstruction says where the "
        "content starts; training seconds are those of drawing, the inversion counted to the way that comes first."
    ),
    cells=_cells,
    run=_run,
)

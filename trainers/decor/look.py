"""What `studio decor` does: look into a prompt's embedding, find what may leak, keep a projector with an adapter."""

from pathlib import Path

import torch

from studio.console import Console
from studio.contracts.condition import Condition
from studio.contracts.sampling import PlainEdit, Request
from studio.data import layouts
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.draw import draw
from studio.models.language import tokenizer_of
from studio.models.text import BOS, EOS, PAD
from studio.sampling import reference_check
from studio.sampling.infer import grid, load
from studio.settings.sampling import SampleRequest
from trainers.decor.config import Components, Save, Suggest
from trainers.decor.edit import DecorEdit, suggest_undesired
from trainers.decor.plot import plot
from trainers.decor.projection import Components as Parts
from trainers.decor.projection import analyze

MARKS = {PAD: "·", BOS: "<begin>", EOS: "<end>"}


def components(settings: Components, console: Console) -> None:
    """Singular values, energy and loadings as a table and a plot; pictures of kept and of dropped components."""
    folder = Path(settings.output)
    folder.mkdir(parents=True, exist_ok=True)
    family = _family(settings)
    with torch.no_grad():
        cond = family.embed([settings.prompt])
    found = analyze(cond.tokens[0].cpu(), token_names(family, settings.prompt, cond))
    plot(found, folder / "components.png")
    rows = [
        [i, float(found.s[i]), float(found.energy[i]), ", ".join(_owners(found, i))]
        for i in range(min(settings.shown, len(found.s)))
    ]
    console.table(["component", "singular value", "energy", "strongest tokens"], rows, form=".3f")
    console.record(
        {"event": "components", "singular_values": found.s.tolist(), "energy": found.energy.tolist()}
    )
    console.print(str(folder / "components.png"))
    if settings.take:
        _regenerate(settings, family, found, folder, console)


def _owners(found: Parts, component: int) -> list[str]:
    best = found.loadings[:, component].argsort(descending=True)[:3].tolist()
    return [str(found.tokens[i]) for i in best]


def token_names(family: Family, prompt: str, cond: Condition) -> list[str]:
    """What each row of an embedding stands for; a dot for padding."""
    kinds = cond.extra["kinds"][0].tolist()
    name = family.card.words.rows
    tokenizer = tokenizer_of(family.tokenizers[name])
    words = iter(tokenizer.tokenize(prompt))
    return [MARKS.get(kind) or next(words, "?").replace("</w>", "").strip("▁") for kind in kinds]


class Rebuilt(PlainEdit):
    """Puts an embedding of chosen components in the prompt's place; the begin row stays."""

    def __init__(self, found: Parts, keep: list[int]) -> None:
        self._tokens = found.rebuild(keep)

    def condition(self, cond: Condition) -> Condition:
        """The condition with the rebuilt rows."""
        new = self._tokens.to(cond.tokens).expand_as(cond.tokens)
        begin = (cond.extra["kinds"] == BOS).unsqueeze(-1)
        return Condition(torch.where(begin, cond.tokens, new), cond.pooled, cond.extra)


def _regenerate(settings: Components, family: Family, found: Parts, folder: Path, console: Console) -> None:
    """A row of pictures each: the prompt, only the taken components, all but them."""
    taken = [i for i in settings.take if i < len(found.s)]
    rest = [i for i in range(len(found.s)) if i not in taken]
    drawn = []
    for edits in ((), (Rebuilt(found, taken),), (Rebuilt(found, rest),)):
        request = Request(
            prompts=[settings.prompt], num_images=settings.num_images, seed=settings.seed, steps=settings.steps,
            guidance=settings.guidance, edits=edits,
        )  # fmt: skip
        drawn += draw(family, request)
    path = folder / "regenerated.png"
    grid(drawn, columns=settings.num_images).save(path)
    console.print(f"{path}: the prompt; only components {taken}; all but them")


def suggest(settings: Suggest, console: Console) -> None:
    """Words that the training captions share and the new prompt does not want."""
    captions = [record.caption for record in layouts.find(settings.data).records if record.caption]
    if not captions:
        raise StudioError(
            f"{settings.data!r} has no captions to compare; write some beside the pictures.", field="data"
        )
    words = suggest_undesired(captions, settings.prompt)
    console.record({"event": "suggested", "undesired": words})
    console.print(" ".join(words) if words else "Nothing: no further word is in most captions.")


def save(settings: Save, console: Console) -> None:
    """Fit a projector with the adapters on, and write it."""
    family = _family(settings)
    path = Path(settings.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        found = DecorEdit(settings.edit, family).projector()
    found.save(path)
    ranks = ", ".join(str(v.shape[1]) for v in found.blocks)
    console.print(f"{path}: {ranks} directions of {', '.join(found.undesired)}")


def _family(settings: Components | Save) -> Family:
    request = SampleRequest(
        prompt=("a picture",), model=settings.model, artifact=settings.artifact, text=settings.text
    )
    reference_check.check(request)
    return load(request)[0]

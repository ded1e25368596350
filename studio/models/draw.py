"""Draws pictures: guidance, edits, any diffusers scheduler, one seed a picture.

Axes: `b` pictures of one chunk, `c h w` latent.
"""

import contextlib
import inspect
import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from studio.backend.progress import tell
from studio.backend.rng import Rng
from studio.contracts.condition import Condition
from studio.contracts.sampling import Edit, Request
from studio.diffusion.guidance import Guidance
from studio.diffusion.process import NUM_TIMESTEPS
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.pictures import as_pictures

log = logging.getLogger(__name__)
PIXELS = 1024 * 1024
"""Of the pictures drawn at once: one of SDXL's, four of SD 1.5's."""


@dataclass(frozen=True)
class Progress:
    """Where drawing is.

    Attributes:
        done, total: Sampler steps of all chunks.
        first: Number of the first picture in this chunk.
        latents: The chunk as it looks now; after its last step, as it is.
    """

    done: int
    total: int
    first: int
    latents: Float[Tensor, "b c h w"]
    family: Family

    def clean_images(self) -> Float[Tensor, "b c h w"]:
        """The chunk as pictures in [-1, 1] (costs a decoding)."""
        with torch.no_grad():
            return self.family.decode(self.latents)

    def preview(self) -> list[Image.Image]:
        """The chunk as 8-bit pictures (costs a decoding)."""
        return as_pictures(self.clean_images())


Drawing = Generator[Progress, None, list[Image.Image]]


def draw(  # what decides over pictures
    family: Family,
    request: Request,
    rng: Rng | None = None,
    *,
    most: int = 4,
    phi: float = 0.0,
    what: str = "",
) -> list[Image.Image]:
    """Pictures in prompt-major order; picture i of a prompt has seed `request.seed + i`.

    Args:
        family: The model, with whatever adapters are on.
        request: What to draw; size 0 is the model's own, scheduler "" the family's own.
        rng: Random numbers of edits, a row a picture of a chunk; None gives every picture its own, from its seed.
        most: Pictures drawn at once, at most; fewer of large ones. Does not change them.
        phi: Guidance rescale (Lin et al. 2024); 0 is none.
        what: What the pictures are for, if how far they are is to be told (see `studio.backend.progress`).
    """
    steps = drawing(family, request, rng, most=most, phi=phi)
    while True:
        try:
            progress = next(steps)
        except StopIteration as finished:
            return finished.value
        if what:
            tell(what, progress.done, progress.total)


def drawing(
    family: Family, request: Request, rng: Rng | None = None, *, most: int = 4, phi: float = 0.0
) -> Drawing:
    """`draw` as a generator: yields after every sampler step, and returns the pictures."""
    request = _checked(family, request)
    seeds = [request.seed + i for _ in request.prompts for i in range(request.num_images)]
    prompts = [prompt for prompt in request.prompts for _ in range(request.num_images)]
    pictures: list[Image.Image] = []
    chunk = max(1, min(most, PIXELS // (request.height * request.width)))
    chunks = range(0, len(seeds), chunk)
    for number, first in enumerate(chunks):
        taken = slice(first, first + chunk)
        part = _chunk(family, request, prompts[taken], seeds[taken], rng=rng, phi=phi)
        for done, total, latents in part:
            progress = Progress(number * total + done, len(chunks) * total, first, latents, family)
            yield progress
        pictures += progress.preview()  # pyright: ignore[reportPossiblyUnboundVariable]  # every chunk takes a step
    return pictures


def _checked(family: Family, request: Request) -> Request:
    height, width = request.height or family.default_size, request.width or family.default_size
    family.check_size(height, width)
    if not request.prompts:
        raise StudioError(
            "There is no prompt; give at least one, such as 'a photo of a dog'.", field="prompts"
        )
    if request.negative and not family.reads_negative:
        raise StudioError(
            f"{family.name} has its guidance distilled and reads no negative prompt; leave it empty.",
            field="negative",
        )
    if request.negative and request.guidance <= 1:
        log.warning("guidance %g makes one pass, which reads no negative prompt", request.guidance)
    return replace(request, height=height, width=width)


def start_noise(
    family: Family, seeds: Sequence[int], height: int, width: int
) -> tuple[Tensor, list[torch.Generator]]:
    """Noise (b c h w) on the CPU, a picture from its own seed, and the generators that drew it."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = family.latent_shape(height, width)
    return torch.stack([torch.randn(shape, generator=one) for one in generators]), generators


@dataclass(frozen=True)
class _Chunk:
    """What all steps of one chunk share."""

    family: Family
    scheduler: SchedulerMixin
    cond: Condition
    uncond: Condition | None
    guidance: Guidance
    generators: list[torch.Generator]
    edits: Sequence[Edit]

    def input(self, latents: Float[Tensor, "b c h w"], timestep: Tensor) -> Float[Tensor, "b c h w"]:
        """What the denoiser sees."""
        return self.scheduler.scale_model_input(latents, timestep) if _scales(self.scheduler) else latents

    def predict(self, latents: Float[Tensor, "b c h w"], timestep: Tensor) -> Float[Tensor, "b c h w"]:
        """The guided native prediction: that of the first edit that gives one, or the usual one."""
        x_t = self.input(latents, timestep)
        t = (timestep.float() / NUM_TIMESTEPS).to(latents.device).expand(len(latents))
        for edit in self.edits:
            own = edit.predict(x_t, t, cond=self.cond, uncond=self.uncond, guidance=self.guidance)
            if own is not None:
                return own
        return guided(self.family, x_t, t, cond=self.cond, uncond=self.uncond, guidance=self.guidance)

    def step(self, latents: Float[Tensor, "b c h w"], timestep: Tensor) -> tuple[Tensor, Tensor]:
        """The next latents, and the clean ones they point to where the scheduler says so."""
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        options = {"generator": self.generators} if takes_generator else {}
        output = self.scheduler.step(self.predict(latents, timestep), timestep, latents, **options)
        following = output.prev_sample
        return following, output.get("pred_original_sample", following)


def guided(
    family: Family,
    x_t: Float[Tensor, "b c h w"],
    t: Float[Tensor, " b"],
    *,
    cond: Condition,
    uncond: Condition | None,
    guidance: Guidance,
) -> Float[Tensor, "b c h w"]:
    """The native prediction under guidance: one pass without `uncond`, else both halves in one batch."""
    if uncond is None:
        return family.predict(x_t, t, cond)
    if uncond.tokens.shape == cond.tokens.shape:
        both = family.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), uncond.cat(cond))
        without, conditional = both.chunk(2)
    else:
        without, conditional = family.predict(x_t, t, uncond), family.predict(x_t, t, cond)
    return family.guide(conditional, without, guidance)


def _chunk(
    family: Family,
    request: Request,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    rng: Rng | None,
    phi: float,
) -> Iterator[tuple[int, int, Tensor]]:
    chunk, latents = _prepared(family, request, prompts, seeds, rng=rng, phi=phi)
    total = len(chunk.scheduler.timesteps)
    for step, timestep in enumerate(chunk.scheduler.timesteps):
        for edit in request.edits:
            edit.at(step)
        with torch.no_grad(), editing(family, request.edits):
            latents, clean = chunk.step(latents, timestep)
        yield step + 1, total, latents if step + 1 == total else clean


def _prepared(
    family: Family,
    request: Request,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    rng: Rng | None,
    phi: float,
) -> tuple[_Chunk, Float[Tensor, "b c h w"]]:
    """What all steps of a chunk share, and its first latents."""
    scheduler = family.scheduler(request.scheduler, request.steps, height=request.height, width=request.width)
    for edit in request.edits:
        edit.begin(request, scheduler)
    noise, generators = start_noise(family, seeds, request.height, request.width)
    noise = _edited(noise.to(family.backend.device), request.edits, seeds, rng)
    with torch.no_grad():
        cond, uncond = conditions(family, request, prompts)
    chunk = _Chunk(
        family, scheduler, cond, uncond, Guidance(request.guidance, phi), generators, request.edits
    )
    return chunk, noise * scheduler.init_noise_sigma if _scales(scheduler) else noise


def trajectory(
    family: Family, request: Request, prompt: str, seed: int
) -> tuple[list[Float[Tensor, "1 c h w"]], Condition]:
    """What the denoiser sees at every step of one picture, drawn as a request says but without its edits.

    Its condition comes with it: under guidance the unconditional row first.
    """
    plain = replace(_checked(family, request), edits=())
    chunk, latents = _prepared(family, plain, [prompt], [seed], rng=None, phi=0.0)
    seen: list[Tensor] = []
    for timestep in chunk.scheduler.timesteps:
        seen.append(chunk.input(latents, timestep))
        with torch.no_grad():
            latents, _ = chunk.step(latents, timestep)
    return seen, chunk.cond if chunk.uncond is None else chunk.uncond.cat(chunk.cond)


def _edited(noise: Tensor, edits: Sequence[Edit], seeds: Sequence[int], rng: Rng | None) -> Tensor:
    for edit in edits:
        if rng is None:
            own = [Rng.single(seed, 1, 1, noise.device) for seed in seeds]
            noise = torch.cat([edit.start(noise[i : i + 1], one) for i, one in enumerate(own)])
        else:
            noise = edit.start(noise, rng)
    return noise


def conditions(
    family: Family, request: Request, prompts: Sequence[str]
) -> tuple[Condition, Condition | None]:
    """Condition of the prompts after edits, and the unconditional one where guidance needs a second pass."""
    family.make_room()
    second = family.passes(request.guidance) > 1
    asked = [*prompts, *([request.negative] * len(prompts) if second else [])]
    taken = any(edit.takes_references for edit in request.edits)
    if family.card.references and request.references and not taken:
        both = family.embed_with(asked, request.references, request.height, request.width)
    else:
        both = family.embed(asked)
    cond = family.with_guidance(both.rows(slice(0, len(prompts))), request.guidance)
    for edit in request.edits:
        cond = edit.condition(cond)
    return cond, both.rows(slice(len(prompts), None)) if second else None


@contextlib.contextmanager
def editing(family: Family, edits: Sequence[Edit]) -> Iterator[None]:
    """Let the edits change attention; the first in the list is asked first."""
    with contextlib.ExitStack() as stack:
        for edit in edits:
            stack.enter_context(family.attending_where(edit.attention))
        yield


def _scales(scheduler: SchedulerMixin) -> bool:
    """Whether a scheduler works in its own scale of noise; flow matching has none."""
    return not isinstance(scheduler, FlowMatchEulerDiscreteScheduler | FlowMatchHeunDiscreteScheduler)

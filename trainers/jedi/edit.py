"""Sampling with JeDi: the set of references and one picture to draw, completed at every step (section 5 of the notes).

    e^ = e(0,0) + s_I [e(r,0) - e(0,0)] + s_T [e(r,y) - e(r,0)]

Each picture is a set of its own with all references, so it does not depend on those drawn beside it. References are
noised to the time of the step with a noise that stays.

Axes: `b` pictures, `k` references, `c h w` latent.
"""

from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from studio.adapters.build import attach, load_tensors
from studio.adapters.config import Full
from studio.adapters.files import read
from studio.adapters.strength import set_strength
from studio.backend.rng import Rng
from studio.contracts.condition import Condition
from studio.contracts.sampling import PlainEdit, Request
from studio.diffusion.guidance import Guidance, rescale
from studio.errors import StudioError
from studio.models.base import Family
from studio.records.trained import Trained
from studio.same_subject import references
from studio.sampling import reference_check
from studio.settings import serial
from trainers.jedi.config import Jedi, Joint, TextOnly
from trainers.jedi.model import Members, predict, reference_input

WEIGHTS = "jedi.safetensors"
DENOISER, INPUTS = "denoiser.", "inputs."
"""In front of the names of tensors in the file."""
ADAPTER = "jedi"


class JediEdit(PlainEdit):
    """Draws what a request's references show."""

    looks = True

    def __init__(self, settings: Jedi, family: Family, inputs: nn.Module, strength: float = 1.0) -> None:
        """Take a network whose weights are in place.

        Args:
            settings: How guidance and references work.
            family: The model.
            inputs: The widened part of its first layer.
            strength: Factor of the scale of the references in guidance (s_I).
        """
        self._settings, self._family, self._inputs, self._strength = settings, family, inputs, strength
        self._clean: Tensor
        self._noise: list[Tensor] = []
        self._seen_for: tuple[Any, ...] = ()

    @override
    def begin(self, request: Request, scheduler: Any) -> None:
        """Encode the references once a size.

        Raises:
            StudioError: There are none, or another edit wants to change the attention that this one couples.
        """
        if not request.references:
            raise reference_check.missing("jedi")
        for edit in request.edits:
            if edit is not self and type(edit).attention is not PlainEdit.attention:
                raise StudioError(
                    f"JeDi couples self-attention itself and cannot share it with {type(edit).__name__}; leave one out.",
                    field="edits",
                )
        self._noise = []
        seen_for = (request.height, request.width, *map(id, request.references))
        if seen_for == self._seen_for:
            return
        pictures = references.tensors(request.references, request.height, request.width)
        with torch.no_grad():
            self._clean = self._family.encode(pictures.to(self._family.backend.device))
            caption = self._family.embed([self._settings.reference_caption])
        self._told, self._seen_for, self._pictures = caption, seen_for, request.references

    @override
    def start(self, latents: Tensor, rng: Rng) -> Tensor:
        """The noise as it is; that of the references is drawn beside it."""
        self._noise.append(rng.normal(len(latents), *self._clean.shape).to(latents))
        return latents

    @override
    def predict(
        self,
        x_t: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        *,
        cond: Condition,
        uncond: Condition | None,
        guidance: Guidance,
    ) -> Float[Tensor, "b c h w"]:
        """The guided prediction: as many passes as the scales need."""
        members = self._members(x_t, t)
        full = self._joint(members, cond)
        if uncond is None:
            return full
        s_t, s_i = guidance.scale, self._strength * self._scale(guidance.scale)
        found = s_t * full
        if s_i != s_t:
            found = found + (s_i - s_t) * self._joint(members, uncond)
        if s_i != 1:
            found = found + (1 - s_i) * self._family.predict(x_t, t, uncond)
        return rescale(found, full, guidance.phi)

    def _scale(self, text: float) -> float:
        guide = self._settings.guide
        return text if isinstance(guide, Joint) else 1.0 if isinstance(guide, TextOnly) else guide.references

    def _members(self, x_t: Tensor, t: Tensor) -> Members:
        """The picture to draw as member 0, then the references."""
        noise = torch.cat(self._noise)
        clean = repeat(self._clean, "k c h w -> b k c h w", b=len(x_t)).to(x_t)
        rows = rearrange(clean, "b k c h w -> (b k) c h w")
        if self._settings.noise_references:
            times = repeat(t, "b -> (b k)", k=clean.shape[1])
            rows = self._family.process.add_noise(rows, rearrange(noise, "b k c h w -> (b k) c h w"), times)
        noised = rearrange(rows, "(b k) c h w -> b k c h w", b=len(x_t))
        given = torch.ones(len(x_t), clean.shape[1] + 1, dtype=torch.bool, device=x_t.device)
        given[:, 0] = False
        return Members(
            x_t=torch.cat([x_t[:, None], noised], dim=1),
            t=t,
            clean=torch.cat([torch.zeros_like(x_t)[:, None], clean], dim=1),
            given=given,
        )

    def _joint(self, members: Members, cond: Condition) -> Float[Tensor, "b c h w"]:
        """The coupled prediction for the pictures to draw."""
        b, n = members.given.shape
        told = self._family.with_guidance(self._told, 1.0)
        if told.tokens.shape[1] != cond.tokens.shape[1]:
            raise StudioError(
                "JeDi needs captions of one length; leave long prompts off (--text.no-long-prompts).",
                field="text",
            )
        order = torch.cat([torch.arange(b)[:, None], torch.full((b, n - 1), b)], dim=1).flatten()
        return predict(self._family, self._inputs, members, cond.cat(told).rows(order))[:, 0]


def load(trained: Trained, family: Family, strength: float) -> JediEdit:
    """What a JeDi folder holds, put on a family: its weights take the place of the denoiser's.

    Raises:
        StudioError: The folder was made for another family or for other sizes.
    """
    refuse_other_family(trained, family)
    settings = serial.from_dict(Jedi, dict(trained.settings["jedi"]), where="method.json")
    if not strength >= 0:
        raise StudioError(
            f"Strength {strength:g} of a JeDi artifact is negative; it is the factor of the references' guidance, "
            "so give 0 or more.",
            field="strength",
        )
    inputs = reference_input(family)
    if not isinstance(settings.adapter, Full):
        modules = {family.denoiser_name: family.modules()[family.denoiser_name]}
        attach(settings.adapter, modules, ADAPTER)
        take_up(trained, family, inputs, ADAPTER)
        set_strength(modules, ADAPTER, 1.0)
    else:
        take_up(trained, family, inputs)
    return JediEdit(settings, family, family.backend.place(inputs), strength)


def refuse_other_family(trained: Trained, family: Family, field: str = "artifact") -> None:
    """Refuse a folder that was made for another family, before anything is put on this one.

    Raises:
        StudioError: Names the model to load it on.
    """
    if trained.settings["family"] != family.name:
        raise StudioError(
            f"{trained.folder} was made for {trained.settings['family']}, but the model is {family.name}; "
            f"load it on {trained.model}.",
            field=field,
        )


def take_up(
    trained: Trained, family: Family, inputs: nn.Module, adapter: str = "", field: str = "artifact"
) -> None:
    """Put the tensors of a folder into a denoiser, or into an adapter on it, and into the widened part of its first layer.

    Raises:
        StudioError: They are for another model or adapter, or damaged.
    """
    values, _ = read(trained.folder / WEIGHTS)
    denoiser = family.modules()[family.denoiser_name]
    own = {key.removeprefix(DENOISER): v.float() for key, v in values.items() if key.startswith(DENOISER)}
    wide = {key.removeprefix(INPUTS): v.float() for key, v in values.items() if key.startswith(INPUTS)}
    try:
        inputs.load_state_dict(wide)
        if adapter:
            load_tensors(denoiser, own, adapter)
        else:
            denoiser.load_state_dict(own)
    except RuntimeError as error:
        raise StudioError(
            f"The JeDi weights of {trained.folder} do not fit this {family.name} "
            f"({str(error).splitlines()[-1].strip(' .')}); load them on {trained.model}, the model they were made for.",
            field=field,
        ) from None

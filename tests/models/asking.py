"""How each family's pipeline in diffusers is asked for a picture from given noise: the one place where tests know them apart."""

from studio.contracts.sampling import Request
from studio.models.packing import pack, unpack

SIZE = 64


def asked(family, request: Request, latents):
    """Arguments of a pipeline's call, and the sides of a packed latent if it wants one."""
    options = {
        "prompt": list(request.prompts),
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance,
        "height": SIZE,
        "width": SIZE,
        "output_type": "pt",
        "latents": latents,
    }
    return options | OWN.get(family.name, lambda *_: {})(family, request, latents)


def _t5(family, request, latents):
    del request, latents
    return {"max_sequence_length": family.text.t5_tokens}


def _flux(family, request, latents):
    return _t5(family, request, latents) | {"latents": pack(latents)}


def _counted_from_zero(family, request, latents):
    del family, latents
    return {"guidance_scale": request.guidance - 1}


OWN = {"sd3": _t5, "flux": _flux, "z-image": _counted_from_zero}
"""What a family's pipeline is asked otherwise."""


def unpacked(family, output, latents):
    """What a denoiser gave, as a latent."""
    del family
    return output if output.ndim == latents.ndim else unpack(output, latents.shape[-2] // 2)

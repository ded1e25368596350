"""How each family's pipeline in diffusers is asked for a picture from given noise: the one place where tests know them apart."""

from einops import rearrange

from studio.contracts.sampling import Request
from studio.models.language import quarters
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


def _flux2(family, request, latents):
    del request, latents
    return {"text_encoder_out_layers": quarters(family.text_encoders["text_encoder"])}


OWN = {"sd3": _t5, "flux": _flux, "z-image": _counted_from_zero, "flux2-klein": _flux2, "flux2": _flux2}
"""What a family's pipeline is asked otherwise."""


def unpacked(family, output, latents):
    """What a denoiser gave, as a latent."""
    if output.ndim == latents.ndim:
        return output
    height = latents.shape[-2] // max(family.patch, 1)
    return (
        unpack(output, height) if family.patch == 2 else rearrange(output, "b (h w) c -> b c h w", h=height)
    )

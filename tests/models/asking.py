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


def _qwen(family, request, latents):
    del family
    return {
        "latents": pack(latents),
        "guidance_scale": None,
        "true_cfg_scale": request.guidance,
        "negative_prompt": [request.negative] * len(request.prompts) if request.guidance > 1 else None,
    }


OWN = {"sd3": _t5, "flux": _flux, "qwen-image": _qwen}
"""What a family's pipeline is asked otherwise."""


def unpacked(family, output, latents):
    """What a denoiser gave, as a latent."""
    del family
    return output if output.ndim == latents.ndim else unpack(output, latents.shape[-2] // 2)


def autoencoded(vae, images):
    """Pictures in [-1, 1] through an autoencoder alone; one of films is given films of one picture."""
    film = len(next(vae.parameters()).shape) == 5
    latents = vae.encode(images.unsqueeze(2) if film else images).latent_dist.mode()
    decoded = vae.decode(latents).sample
    return decoded[:, :, 0] if film else decoded

"""How each family's pipeline in diffusers is asked for a picture from given noise: the one place where tests know them apart."""

import copy
import functools

import torch
from diffusers import QwenImagePipeline
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
    options |= OWN.get(family.name, lambda *_: {})(family, request, latents)
    return {key: value for key, value in options.items() if value is not None}


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


def _kontext(family, request, latents):
    return _flux(family, request, latents) | {"max_area": SIZE * SIZE}


def _fill(family, request, latents):
    """Nothing is kept of an empty picture."""
    nothing = {"image": torch.zeros(1, 3, SIZE, SIZE), "mask_image": torch.ones(1, 1, SIZE, SIZE)}
    return _flux(family, request, latents) | nothing


def _chroma(family, request, latents):
    return _flux(family, request, latents) | {"negative_prompt": [request.negative] * len(request.prompts)}


def _counted_from_zero(family, request, latents):
    del family, latents
    return {"guidance_scale": request.guidance - 1}


def _flux2(family, request, latents):
    del request, latents
    return {"text_encoder_out_layers": quarters(family.text_encoders["text_encoder"])}


def _krea(family, request, latents):
    return _counted_from_zero(family, request, latents) | {"latents": pack(latents)}


def _qwen21(family, request, latents):
    asked_of_qwen = _qwen(family, request, latents)
    return asked_of_qwen | {"use_kv_cache": False, "latents": rearrange(latents, "b c h w -> b (h w) c")}


OWN = {
    "sd3": _t5,
    "flux": _flux,
    "flux-kontext": _kontext,
    "flux-fill": _fill,
    "chroma": _chroma,
    "z-image": _counted_from_zero,
    "krea2": _krea,
    "qwen-image": _qwen,
    "qwen-image-2.1": _qwen21,
    "flux2-klein": _flux2,
    "flux2": _flux2,
    "qwen-image-edit": _qwen,
}
"""What a family's pipeline is asked otherwise."""


def unpacked(family, output, latents):
    """What a denoiser gave, as a latent."""
    if output.ndim == latents.ndim:
        return output
    height = latents.shape[-2] // max(family.patch, 1)
    return (
        unpack(output, height) if family.patch == 2 else rearrange(output, "b (h w) c -> b c h w", h=height)
    )


def autoencoded(vae, images):
    """Pictures in [-1, 1] through an autoencoder alone; one of films is given films of one picture, opaque if it asks."""
    film = "temperal_downsample" in vae.config
    if vae.config.get("in_channels", 3) == 4:
        images = torch.cat([images, torch.ones_like(images[:, :1])], dim=1)
    latents = vae.encode(images.unsqueeze(2) if film else images).latent_dist.mode()
    decoded = vae.decode(latents).sample
    return (decoded[:, :, 0] if film else decoded)[:, :3]


def pipeline_of(family):
    """A pipeline that does what its model was trained for, where diffusers' own does otherwise."""
    pipeline = family.pipeline()
    return PIPELINES.get(family.name, lambda _: None)(pipeline) or pipeline


def _takes_the_mode(pipeline):
    """It draws the latent of what is kept from its distribution, with a generator of its own."""
    pipeline.prepare_mask_latents = functools.partial(_with_the_mode, pipeline, pipeline.prepare_mask_latents)


def _with_the_mode(pipeline, prepare, mask, picture, *others):
    return prepare(mask, pipeline.vae.encode(picture).latent_dist.mode(), *others)


def _masks_padding(pipeline):
    """It hands its mask over as numbers, which attention adds instead of masking (diffusers issue 12116)."""
    prepare = pipeline._prepare_attention_mask

    def masking(**given):
        mask = prepare(**given)
        return mask if mask is None else mask.bool()

    pipeline._prepare_attention_mask = masking


def _without_pictures(pipeline):
    """It wants a picture: without one, Qwen-Image's reads the same template."""
    plain = QwenImagePipeline(**{k: v for k, v in pipeline.components.items() if k != "processor"})
    plain.prompt_template_encode = pipeline.prompt_template_encode
    plain.prompt_template_encode_start_idx = pipeline.prompt_template_encode_start_idx
    return plain


def _prompt_by_prompt(pipeline):
    """It pads behind the shorter prompt of a batch, which moves the picture away from it: here each is run alone."""
    network = copy.copy(pipeline.transformer)
    forward = network.forward

    def alone(**given):
        rows, mask, pictures = (
            given.pop(key) for key in ("encoder_hidden_states", "encoder_hidden_states_mask", "img_mask")
        )
        found = []
        for row in range(len(rows)):
            length = rows.shape[1] if mask is None else int(mask[row].sum())
            own = {key: given[key][row : row + 1] for key in ("hidden_states", "timestep", "img_shapes")}
            seen = torch.cat([pictures[row, :length], pictures[row, rows.shape[1] :]])[None]
            (whole,) = forward(
                **(given | own), encoder_hidden_states=rows[row : row + 1, :length], img_mask=seen
            )
            found.append(whole[:, -given["hidden_states"].shape[1] :])
        return (torch.cat(found),)

    network.forward = alone
    pipeline.register_modules(transformer=network)


PIPELINES = {
    "flux-fill": _takes_the_mode,
    "chroma": _masks_padding,
    "qwen-image-edit": _without_pictures,
    "qwen-image-2.1": _prompt_by_prompt,
}

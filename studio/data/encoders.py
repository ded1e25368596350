"""A model's own encoders, as the caches of latents and of text ask them."""

from jaxtyping import Float
from torch import Tensor

from studio.data.cache import Encoder, Tensors, TextCache, digest, open_cache
from studio.data.config import Images
from studio.models.base import Family


def encoder_of(family: Family) -> Encoder:
    """What makes `latents` and, of an autoencoder with a distribution, `latents_std`: see `Moments`."""

    def encode(images: Float[Tensor, "1 3 h w"]) -> Tensors:
        found = family.moments(images)
        return {"latents": found.mean} | ({} if found.std is None else {"latents_std": found.std})

    key = digest(family.fingerprint("vae"), str(family.vae.dtype))
    return Encoder(encode=encode, fingerprint=key, done=lambda: family.rest("vae"))


def texts_of(family: Family, settings: Images) -> TextCache | None:
    """Where the embeddings of captions are kept on disk; None where the settings do not ask for it.

    The text encoders leave the device but for captions that are not there.
    """
    if settings.cache != "latents+text":
        return None
    family.rest(*family.text_encoders)
    facts = (family.fingerprint(), repr(family.text), str(family.backend.dtype))
    return TextCache(cache=open_cache(settings), fingerprint=digest(*facts))

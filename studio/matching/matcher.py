"""What matches pictures with names: the thing that prompts, adapters and probes are variants of.

Axes: `b` pictures, `c` names, `d` features.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from studio.matching.words import sentences
from studio.models.dual import DualEncoder


class Matcher(nn.Module):
    """A dual encoder that is asked by names: their features are means over sentences (CLIP, section 3.1.4).

    Attributes:
        templates: The sentences.
        sees_names: Whether it can be asked about names that training did not have.
        classes: The names that it can be asked about, where it knows no others.
    """

    sees_names = True
    classes: tuple[str, ...] = ()

    def __init__(self, model: DualEncoder, templates: Sequence[str]) -> None:
        super().__init__()
        self.model, self.templates = model, tuple(templates)

    def images(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Unit features of pictures in [-1, 1]."""
        return self.model.images(images)

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit features of any texts."""
        return self.model.texts(texts)

    def names(self, names: Sequence[str]) -> Float[Tensor, "c d"]:
        """Unit features of names."""
        found = self.texts(sentences(self.templates, names))
        each = rearrange(found, "(t c) d -> t c d", c=len(names))
        return F.normalize(each.mean(0), dim=-1)

    def logits(self, features: Float[Tensor, "b d"], names: Sequence[str]) -> Float[Tensor, "b c"]:
        """Scaled cosines of pictures' features and names."""
        return self.model.logits(features, self.names(names))

    def knows(self, names: Sequence[str]) -> bool:
        """Whether it can be asked about these names."""
        return self.sees_names or set(names) <= set(self.classes)

    def learned(self) -> dict[str, nn.Parameter]:
        """What a method added to the model: prompts, a head; by name."""
        return {key: value for key, value in self.named_parameters() if not key.startswith("model.")}

    def pull(
        self, features: Tensor, logits: Tensor, images: Tensor, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Further losses that keep the matcher near the frozen model, by name; none here.

        Args:
            features: Of the pictures, as this matcher sees them.
            logits: Its answers.
            images: The pictures in [-1, 1].
            names: What it was asked about.
        """
        del features, logits, images, names
        return {}


@torch.no_grad()
def features_of(matcher: Matcher, images: Sequence[Tensor]) -> Float[Tensor, "b d"]:
    """Features of batches of pictures in [-1, 1], on the CPU."""
    return torch.cat([matcher.images(part.to(matcher.model.device)).float().cpu() for part in images])

"""CoOp: the words around a name are learned, shared by all classes or one set a class.

    Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models", 2021, arXiv 2109.01134

    t = [V]_1 ... [V]_M [CLASS]    (eq. 2);  [CLASS] may stand amid or before the context

Departure: no full stop behind the name, since not every tokenizer here has one.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from studio.errors import StudioError
from studio.matching.config import Coop
from studio.matching.context import Place, phrase_vectors, text_context, with_slots
from studio.matching.matcher import Matcher
from studio.models.dual import DualEncoder

_SMALL = 0.02
"""Standard deviation of random vectors (official code)."""


class PromptMatcher(Matcher):
    """Names in learned contexts; the towers are frozen."""

    def __init__(self, model: DualEncoder, settings: Coop, classes: Sequence[str]) -> None:
        super().__init__(model, ())
        self.place: Place = settings.place
        self.classes = tuple(classes)
        vectors = phrase_vectors(model, settings.phrase) if settings.phrase else None
        if vectors is None:
            shape = (settings.length, model.width("text"))
            context = _SMALL * torch.randn(*((len(classes),) if settings.per_class else ()), *shape)
        else:
            context = vectors.repeat(len(classes), 1, 1) if settings.per_class else vectors
        self.context = nn.Parameter(context)
        self.sees_names = not settings.per_class
        self._tokens: dict[tuple[str, ...], Any] = {}

    @override
    def names(self, names: Sequence[str]) -> Float[Tensor, "c d"]:
        ids, slots = self.tokens(names)
        with text_context(self.model, slots, self.layers(names)):
            return F.normalize(self.model.encode_tokens(ids), dim=-1)

    def layers(self, names: Sequence[str]) -> list[Tensor]:
        """The vectors of each layer, the input first."""
        if self.context.ndim == 2:
            return [self.context]
        if strange := set(names) - set(self.classes):
            raise StudioError(
                f"A context for each class knows no other names, such as {min(strange)!r}; train with "
                "--tuning.per-class false to ask about new ones.",
                field="tuning.per_class",
            )
        return [self.context[[self.classes.index(name) for name in names]]]

    def tokens(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and free places of names, made once."""
        key = tuple(names)
        if key not in self._tokens:
            spoken = [name.replace("_", " ") for name in names]
            self._tokens[key] = with_slots(self.model, spoken, self.context.shape[-2], self.place)
        return self._tokens[key]

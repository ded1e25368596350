"""Shifts predictions by the brightness of references."""

from studio.contracts.sampling import PlainEdit
from studio.errors import StudioError
from studio.models.draw import guided
from studio.same_subject import references
from studio.sampling import reference_check


class LookerEdit(PlainEdit):
    """Says what it was made from and what it saw."""

    def __init__(self, trained, family, strength):
        if strength < 0:
            raise StudioError(f"Strength {strength} turns away.", field="strength")
        self.trained, self.family, self.strength, self.calls = trained, family, strength, 0

    def begin(self, request, scheduler):
        if not request.references:
            raise reference_check.missing(self.trained.method)
        self.seen = references.tensors(request.references, request.height, request.width)

    def predict(self, x_t, t, *, cond, uncond, guidance):
        self.calls += 1
        usual = guided(self.family, x_t, t, cond=cond, uncond=uncond, guidance=guidance)
        return usual + self.strength * self.seen.mean()

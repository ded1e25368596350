"""The smallest sensible settings, for `pytest --pyargs studio.testing --method custom_diffusion`."""

from pathlib import Path

from custom_diffusion.config import CustomDiffusion
from studio.same_subject.config import OnlinePrior
from studio.testing import photos


def case(folder: Path) -> CustomDiffusion:
    """A subject of noise, on a model of noise."""
    return CustomDiffusion(data=photos(folder), model="tiny:sd1", token="sks", prior=OnlinePrior())

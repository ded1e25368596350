"""What the paper of Blueprint says of it."""

from pathlib import Path

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.commands.blueprint.config import Blueprint
from studio.commands.blueprint.trainer import BlueprintTrainer
from studio.contracts.sampling import Request
from studio.models.build import load
from studio.models.draw import draw
from studio.settings.run import Hardware
from studio.testing import photos


def test_training_starts_at_the_base_model(tmp_path: Path):
    backend = Backend(Hardware(device="cpu", precision="fp32"))
    settings = Blueprint(data=photos(tmp_path), model="tiny:sd1")
    trainer = BlueprintTrainer(settings)
    trainer.setup(backend)
    request = Request(prompts=["a photo"], steps=2, seed=1)
    (drawn,) = trainer.sample(request, Rng.single(1, 0, 1)).images
    (base,) = draw(load("tiny:sd1", backend), request, Rng.single(1, 0, 1))
    assert drawn.tobytes() == base.tobytes()

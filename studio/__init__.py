"""Studio: finetune and harden image models; the engine, which knows methods only by their contract.

    import studio

    run = studio.Run.of("dreambooth", data="photos", class_word="dog")
    for event in studio.train(run):
        print(event)

Each name is imported when it is asked for: `import studio` alone brings no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studio.catalog.methods import list_methods
    from studio.catalog.run import Run
    from studio.errors import StudioError
    from studio.evaluation.evaluate import evaluate
    from studio.sampling.sample import pipeline, sample
    from studio.training.export import export
    from studio.training.plan import plan
    from studio.training.train import resume, train

__all__ = [
    "Run",
    "StudioError",
    "evaluate",
    "export",
    "list_methods",
    "pipeline",
    "plan",
    "resume",
    "sample",
    "train",
]
_PLACES = {
    "Run": "studio.catalog.run",
    "StudioError": "studio.errors",
    "evaluate": "studio.evaluation.evaluate",
    "export": "studio.training.export",
    "list_methods": "studio.catalog.methods",
    "pipeline": "studio.sampling.sample",
    "plan": "studio.training.plan",
    "resume": "studio.training.train",
    "sample": "studio.sampling.sample",
    "train": "studio.training.train",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for."""
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return __all__

"""A function of the person's own as a reward.

Axes: `b` pictures, `H W` image.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.rewards.config import User


def load_function(path: str) -> Callable[..., Any]:
    """The function that `module:function` names; the present folder counts as a place of modules.

    Raises:
        StudioError: It cannot be imported, or is not a function.
    """
    module, _, name = path.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        found = vars(importlib.import_module(module))[name]
    except (ImportError, ValueError, KeyError) as error:
        raise StudioError(
            f"Reward {path!r} cannot be imported ({type(error).__name__}: {error}); give `module:function`, such as "
            "`rewards:smile` for the function smile in rewards.py.",
            field="function",
        ) from error
    if not callable(found):
        raise StudioError(f"Reward {path!r} is a {type(found).__name__}, not a function.", field="function")
    return found


class UserReward:
    """Calls the function on images in [-1, 1], and gives up on it after a while."""

    def __init__(self, settings: User) -> None:
        self._function, self._seconds = load_function(settings.function), settings.seconds
        self._differentiable = settings.differentiable

    def __call__(self, images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]) -> Any:
        """What the function gives; its shape is checked by the caller.

        Raises:
            TimeoutError: It took too long. Its thread is left behind, as Python cannot end one.
        """
        result: list[Any] = []
        failure: list[Exception] = []
        graph = self._differentiable and torch.is_grad_enabled()  # a thread has a grad mode of its own

        def work() -> None:
            try:
                with torch.set_grad_enabled(graph):
                    result.append(self._function(images, list(prompts)))
            except Exception as error:  # raised again below, in the caller's thread
                failure.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(self._seconds)
        if failure:
            raise failure[0]
        if not result:
            raise TimeoutError(f"it took longer than {self._seconds:g} s")
        return result[0]

"""A function or class of the person's own as a reward: what other rooms call `Custom`, with a time limit.

Axes: `b` pictures, `H W` image.
"""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from studio.catalog import outside
from studio.rewards.config import User
from studio.settings.custom import Custom


class UserReward:
    """Calls the function on images in [-1, 1], and gives up on it after a while."""

    def __init__(self, settings: User) -> None:
        named = Custom(path=settings.function, options=settings.options)
        self._function = outside.made(named, what="Reward", field="reward")
        self._seconds = settings.seconds
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

"""What to draw in each rollout, as a source: prompts and seeds are a function of (seed, step)."""

from collections.abc import Iterator, Sequence

import torch

from studio.backend.rng import mix
from studio.batch import Batch, Shard
from studio.errors import StudioError


class Orders:
    """Prompts and seeds of the rollout that each step belongs to; all its pictures, whatever the shard.

    Every prompt is drawn before one is drawn again.
    """

    def __init__(self, prompts: Sequence[str], *, images: int, group: int, per_image: int) -> None:
        """Take what a rollout is made of.

        Args:
            prompts: Prompts to choose from.
            images: Pictures a rollout.
            group: Pictures that share a prompt.
            per_image: Transitions learned from, a picture, over all epochs.
        """
        self._prompts, self._images, self._group, self._per_image = prompts, images, group, per_image

    def __len__(self) -> int:
        return len(self._prompts)

    def updates(self, batch_size: int, world: int) -> int:
        """Optimizer steps a rollout.

        Raises:
            StudioError: The batch size does not divide the transitions of a rollout.
        """
        total = self._images * self._per_image
        if total % batch_size or self._images % world:
            raise StudioError(
                f"loop.batch_size {batch_size} does not divide the {total} transitions of a rollout "
                f"({self._images} pictures x {self._per_image} learned steps, {world} processes); choose a divisor, "
                f"such as {self._per_image * world}.",
                field="loop.batch_size",
            )
        return total // batch_size

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """One order a step: `prompts`, `seeds` and `rollout`, its number, `images` long; `updates` and `position`."""
        updates = self.updates(shard.total, shard.total // (shard.stop - shard.start))
        step = first
        while True:
            number, position = divmod(step, updates)
            rows = range(self._images)
            yield {
                "prompts": [self._prompt(seed, (number * self._images + row) // self._group) for row in rows],
                "seeds": [mix(seed, number + 1, row) for row in rows],
                "updates": [updates] * self._images,
                "position": [position] * self._images,
            }
            step += 1

    def _prompt(self, seed: int, position: int) -> str:
        """The prompt at a place of the endless, shuffled list."""
        turn, place = divmod(position, len(self._prompts))
        order = torch.randperm(len(self._prompts), generator=torch.Generator().manual_seed(mix(seed, turn)))
        return self._prompts[int(order[place])]

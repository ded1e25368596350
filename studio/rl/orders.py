"""What to draw in each rollout or step, as a source: prompts and seeds are a function of (seed, step)."""

import itertools
from collections.abc import Iterator, Sequence

import torch

from studio.backend.rng import mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch


class Orders:
    """Prompts and seeds of the rollout that each step belongs to; all its pictures, whatever the shard.

    Every prompt is drawn before one is drawn again.
    """

    def __init__(self, prompts: Sequence[str], *, images: int, group: int, epochs: int = 1) -> None:
        """Take what a rollout is made of.

        Args:
            prompts: Prompts to choose from.
            images: Pictures a rollout.
            group: Pictures that share a prompt.
            epochs: Times that a rollout is learned from.
        """
        self._prompts, self._images, self._group, self._epochs = prompts, images, group, epochs

    def __len__(self) -> int:
        return len(self._prompts)

    def updates(self, batch_size: int, world: int) -> int:
        """Optimizer steps a rollout.

        Args:
            batch_size: Pictures a step, over all processes.
            world: Processes.

        Raises:
            ValueError: A rollout is not whole batches of equal shares, which settings that were checked are
                (`studio.rl.sizes`).
        """
        if self._images % batch_size or batch_size % world:
            raise ValueError(f"{self._images} pictures in batches of {batch_size} by {world} processes")
        return self._images // batch_size * self._epochs

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """One order a step: `prompts`, `seeds`, and for each the number of `updates` and the `position` among them."""
        updates = self.updates(shard.total, shard.total // (shard.stop - shard.start))
        for number in itertools.count(first // updates):
            order = self._order(seed, number)
            for position in range(first % updates if number == first // updates else 0, updates):
                yield order | {"updates": [updates] * self._images, "position": [position] * self._images}

    def _order(self, seed: int, number: int) -> Batch:
        return ordered(self._prompts, seed, number, images=self._images, group=self._group)


class Draws:
    """A prompt and a seed for each row of each step, for methods that learn from a picture once, as it is drawn."""

    def __init__(self, prompts: Sequence[str]) -> None:
        """Take the prompts to choose from."""
        self._prompts = prompts

    def __len__(self) -> int:
        return len(self._prompts)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """`prompts` and `seeds` of the shard's rows."""
        for step in itertools.count(first):
            whole = ordered(self._prompts, seed, step, images=shard.total, group=1)
            yield {key: values[shard.start : shard.stop] for key, values in whole.items()}


def ordered(prompts: Sequence[str], seed: int, number: int, *, images: int, group: int) -> Batch:
    """Prompts and seeds of one rollout: places of the endless, shuffled list of prompts."""
    first = number * images // group
    places = [divmod(first + row // group, len(prompts)) for row in range(images)]
    shuffled = {turn: _shuffled(len(prompts), mix(seed, turn)) for turn in {turn for turn, _ in places}}
    return {
        "prompts": [prompts[shuffled[turn][place]] for turn, place in places],
        "seeds": [mix(seed, number + 1, row) for row in range(images)],
    }


def _shuffled(count: int, seed: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()

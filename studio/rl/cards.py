"""The card of a method that learns from rollouts: what they all have. No torch."""

from typing import Any

from studio.catalog.cards import Card
from studio.rl import config, sizes


def card(**facts: Any) -> Card:
    """A card with the facts of a method, and the checks and sizes that all methods of `Reinforced` settings share."""
    return Card(
        check=config.check,
        follow=sizes.follow,
        brief=sizes.brief,
        rows=sizes.learned_steps,
        upgrade=sizes.upgraded,
        offers=("text-to-image", "reward"),
        **facts,
    )

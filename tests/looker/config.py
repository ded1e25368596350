"""Card of the looking method."""

from studio.catalog.cards import Card
from studio.settings.config import config


@config
class Looker:
    """Shifts predictions by the brightness of references."""


METHOD = Card(
    name="tests.looker", title="Looker", summary="shifts predictions", paper="none", config=Looker,
    artifact="tests.looker.edit:LookerEdit", needs_references=True, hidden=True,
)  # fmt: skip

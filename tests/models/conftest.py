"""Tiny families, built once."""

import pytest

from studio.backend.core import Backend
from studio.catalog import families as catalog
from studio.models.build import load
from studio.settings.run import Hardware

NAMES = tuple(catalog.cards())


@pytest.fixture(scope="session")
def backend():
    return Backend(Hardware(device="cpu", precision="fp32"))


@pytest.fixture(scope="session")
def families(backend):
    return {name: load(f"tiny:{name}", backend) for name in NAMES}


@pytest.fixture(params=NAMES)
def family(request, families):
    return families[request.param]

"""Families to train and to load into, and a step that moves what trains."""

import copy
import functools

import pytest
import torch
from torch import nn

from studio.adapters.build import attach
from studio.adapters.config import Lora
from studio.backend.core import Backend
from studio.models.build import load
from studio.settings.run import Hardware

LORA = Lora(rank=4, alpha=8)


@pytest.fixture(scope="session")
def original():
    """Untrained families by name, each built once."""
    backend = Backend(Hardware(device="cpu", precision="fp32"))
    return functools.cache(lambda name: load(f"tiny:{name}", backend))


@pytest.fixture
def untrained(original):
    """A fresh copy of a family: its denoiser, text encoders and tokenizers may be changed."""

    def build(name: str = "sd1"):
        family = copy.copy(original(name))
        family.denoiser = copy.deepcopy(family.denoiser)
        family.text_encoders, family.tokenizers = copy.deepcopy((family.text_encoders, family.tokenizers))
        return family

    return build


@pytest.fixture
def family(untrained):
    return untrained()


def trainable(family) -> dict[str, nn.Module]:
    """Denoiser and the text encoders that methods train."""
    return {family.denoiser_name: family.denoiser, **family.clip_encoders}


@torch.no_grad()
def train(family, adapter, name="studio", size=0.1) -> dict[str, nn.Module]:
    """Attach and move what trains, as steps would."""
    modules = trainable(family)
    generator = torch.Generator().manual_seed(3)
    for key, found in attach(adapter, modules, name).items():
        parameters = dict(modules[key].named_parameters())
        for each in sorted(found):
            parameters[each] += size * torch.randn(parameters[each].shape, generator=generator)
    return modules

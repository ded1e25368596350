"""Eval mode for a while."""

from torch import nn

from studio.models.modes import evaluating


def test_each_part_has_its_own_mode_again():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    model[0].eval()
    with evaluating(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == [True, False, True]

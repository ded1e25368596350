"""BOFT: butterfly factors as the paper draws them, without large matrices, on any machine."""

import pytest
import torch
from torch import nn

from studio.adapters.boft import Butterfly
from studio.adapters.build import attach
from studio.adapters.config import Boft, Oft
from studio.adapters.files import read_peft, write_peft
from studio.adapters.merge import bare, merge, unmerge
from studio.adapters.oft import Blocks
from studio.adapters.orthogonal import rotated_layers, use_factors
from studio.adapters.orthogonal_blocks import dense, turn, turn_back
from studio.adapters.strength import set_strength
from studio.errors import StudioError

SIZES = [(64, 8, 1), (64, 8, 2), (64, 8, 4), (96, 4, 3), (256, 2, 8), (64, 32, 2), (320, 40, 4)]
sizes = pytest.mark.parametrize(("features", "size", "factors"), SIZES)


def butterfly(features, size, factors, std=0.3):
    made = Butterfly(Boft(block_size=size, factors=factors), features, "layer")
    nn.init.normal_(made.weight, std=std, generator=torch.Generator().manual_seed(0))
    return made


def by_hand(made):
    """The product of full matrices: factor i couples half block j with j + 2^i inside groups of 2^(i+1)."""
    half, product = made.size // 2, torch.eye(made.features)
    for number in reversed(range(made.num_factors)):
        factor, stride = torch.zeros(made.features, made.features), 2**number
        for index, block in enumerate(made.rotations()[number]):
            group, within = divmod(index, stride)
            first = (group * 2 * stride + within) * half
            places = [
                *range(first, first + half),
                *range(first + stride * half, first + stride * half + half),
            ]
            factor[torch.tensor(places)[:, None], torch.tensor(places)] = block.detach()
        product = product @ factor
    return product


@sizes
def test_matrix_free_product_is_the_dense_product(features, size, factors):
    made = butterfly(features, size, factors)
    torch.testing.assert_close(dense(made.factors(), features), by_hand(made), rtol=0, atol=2e-6)


@sizes
def test_product_is_orthogonal_and_turns_back(features, size, factors):
    made = butterfly(features, size, factors).factors()
    x = torch.randn(3, features, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(turn_back(turn(x, made), made), x, rtol=0, atol=1e-5)


def test_one_factor_is_oft_with_the_same_tensors():
    boft, oft = butterfly(64, 8, 1), Blocks(Oft(block_size=8), 64, "layer")
    oft.weight.data = boft.weight.data[0]
    torch.testing.assert_close(dense(boft.factors(), 64), dense(oft.factors(), 64), rtol=0, atol=1e-6)


def test_all_factors_make_the_rotation_dense():
    assert (dense(butterfly(64, 8, 4).factors(), 64).abs() > 0).all()
    assert (dense(butterfly(64, 8, 3).factors(), 64) == 0).any()


def test_gradient_reaches_every_factor():
    made = butterfly(256, 2, 8)
    above = torch.randn(3, 256, generator=torch.Generator().manual_seed(1))
    x = torch.randn(3, 256, generator=torch.Generator().manual_seed(2))
    (turn(x, made.factors()) * above).sum().backward()
    assert (made.weight.grad.flatten(1).norm(dim=1) > 1e-3).all()


def test_factors_are_as_many_as_asked_for():
    module = nn.ModuleDict({"layer": nn.Linear(64, 8)})
    names = attach(Boft(block_size=8, factors=3, only=("layer",)), {"m": module})["m"]
    assert sum(module.get_parameter(key).numel() for key in names) == 3 * 64 * 7 // 2


@pytest.mark.parametrize("factors", [1, 3])
def test_layers_start_at_the_base_merge_and_come_back(factors, tmp_path):
    module = nn.ModuleDict({"a": nn.Linear(32, 16), "b": nn.Conv2d(16, 8, 1)})
    x = torch.randn(2, 6, 6, 32, generator=torch.Generator().manual_seed(0))

    def run(net):
        return net["b"](net["a"](x).movedim(-1, 1))

    before = run(module)
    attach(Boft(block_size=4, factors=factors, only=("a", "b"), conv=True), {"m": module})
    assert torch.equal(run(module), before)
    for _, layer in rotated_layers(module):
        nn.init.normal_(layer.rotation.weight, std=0.2, generator=torch.Generator().manual_seed(1))
    after = run(module)
    done = merge({"m": module})
    torch.testing.assert_close(run(module), after, rtol=1e-5, atol=1e-5)
    unmerge(done)
    assert torch.equal(run(module), after)
    write_peft(tmp_path / "boft", module, "studio", "")
    again = bare(module)
    read_peft(tmp_path / "boft", again, "again")
    assert torch.equal(run(again), after)
    set_strength({"m": module}, "studio", 0.0)
    assert torch.equal(run(module), before)


def test_fewer_factors_lead_from_the_tuned_to_the_base_model():
    module = nn.ModuleDict({"a": nn.Linear(32, 16)})
    attach(Boft(block_size=4, factors=3, only=("a",)), {"m": module})
    layer = module["a"].eval()
    nn.init.normal_(layer.rotation.weight, std=0.2, generator=torch.Generator().manual_seed(1))
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    distances = []
    with torch.no_grad():
        for number in (3, 2, 1, 0):
            use_factors({"m": module}, "studio", number)
            distances.append(float((layer(x) - layer.base_layer(x)).norm()))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] == 0


def test_dropout_rests_blocks_of_some_factors():
    made = Butterfly(Boft(block_size=4, factors=3, dropout=0.5, dropout_factors=0.5), 32, "layer")
    nn.init.normal_(made.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(dense(made.factors(), 32), dense(made.factors(), 32))
    made.eval()
    assert torch.equal(dense(made.factors(), 32), dense(made.factors(), 32))


def test_factors_that_do_not_fit_are_refused():
    module = nn.ModuleDict({"layer": nn.Linear(320, 8)})
    with pytest.raises(
        StudioError, match=r"8 x 2\^4 must divide it; choose block_size 8 and at most 4 factors"
    ):
        attach(Boft(block_size=8, factors=5, only=("layer",)), {"m": module})

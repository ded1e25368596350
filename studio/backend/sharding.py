"""Weights spread over the processes by torch's FSDP2: each keeps its share, and a layer is whole only while it computes.

Gradients and optimizer states are spread with their weights. `whole` and `laid_out_as` are the way out and back in,
for checkpoints; both give what they took where nothing is spread. A tensor is gathered by all processes together, so
every process must ask.
"""

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def spread(module: nn.Module, over: DeviceMesh) -> None:
    """Shard the module's blocks, each on its own, and then what is left of the module."""
    for part in reversed(list(module.modules())):
        if part is not module and type(part).__name__ in _blocks(module):
            fully_shard(part, mesh=over)
    fully_shard(module, mesh=over)


def _blocks(module: nn.Module) -> set[str]:
    """Classes of the layers to gather at once: the libraries' own list of what must stay together."""
    from diffusers import ModelMixin  # seconds, which a run's first event does not wait for
    from transformers import PreTrainedModel

    if isinstance(module, ModelMixin | PreTrainedModel):
        return set(module._no_split_modules or ())
    return set()


def synchronize(module: nn.Module, *, wanted: bool) -> None:
    """Whether the next backward pass averages the gradients over the processes."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_requires_gradient_sync(wanted, recurse=False)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, whichever process keeps what of it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def laid_out_as(value: Tensor, example: Tensor) -> Tensor:
    """A whole tensor as this process keeps it: its share if `example` is spread, else itself."""
    if not isinstance(example, DTensor):
        return value
    value = value.to(example.device, example.dtype)
    return distribute_tensor(value, example.device_mesh, example.placements, src_data_rank=None)

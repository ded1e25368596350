"""Groups to optimizer, learning-rate schedule and moving average of the weights."""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from studio.backend.sharding import laid_out_as, whole
from studio.catalog import outside
from studio.contracts.trainer import Group
from studio.errors import StudioError, unknown
from studio.settings.run import Loop, Optim
from studio.training.one_by_one import OneByOne, exact_states

_NAMED = {
    "adamw": "torch.optim:AdamW",
    "sgd": "torch.optim:SGD",
    "adafactor": "transformers.optimization:Adafactor",
    "prodigy": "prodigyopt:Prodigy",
    "schedule-free": "schedulefree:AdamWScheduleFree",
    "adamw8bit": "bitsandbytes.optim:AdamW8bit",
    "lion8bit": "bitsandbytes.optim:Lion8bit",
    "muon": "trainers.pretrain.muon:Muon",
}
_WITHOUT_BETAS = {"sgd", "adafactor"}


def _factory(name: str) -> Callable[..., torch.optim.Optimizer]:
    if name not in _NAMED:
        if "." not in name and ":" not in name:
            raise unknown("optimizer", name, [*_NAMED, "a.dotted.path"], field="optim.name")
        path = name if ":" in name else ":".join(name.rsplit(".", 1))
        return outside.load(path, what="Optimizer", field="optim.name")
    module, _, attribute = _NAMED[name].rpartition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise StudioError(
            f"Optimizer {name!r} cannot be imported ({error}); install its package or choose one of: "
            f"{', '.join(_NAMED)}.",
            field="optim.name",
        ) from None


def build_optimizer(settings: Optim, groups: Sequence[Group]) -> torch.optim.Optimizer:
    """The optimizer over all groups that train, each at its own rate."""
    parameters: list[dict[str, Any]] = []
    for group in groups:
        if not group.trains:
            continue
        trained = [p for p in group.parameters().values() if p.requires_grad]
        if not trained:
            raise ValueError(f"group {group.name!r} trains, but none of its parameters requires a gradient")
        decay = settings.weight_decay if group.weight_decay is None else group.weight_decay
        parameters.append(
            {"params": trained, "lr": (group.lr or settings.lr) * group.lr_scale, "weight_decay": decay}
        )
    arguments: dict[str, Any] = {"lr": settings.lr, **settings.options}
    if settings.name not in _WITHOUT_BETAS:
        arguments.setdefault("betas", settings.betas)
    if settings.name == "adamw":
        arguments.setdefault(
            "fused",
            all(p.device.type in ("cuda", "cpu", "simulated") for g in parameters for p in g["params"]),
        )
    if settings.name == "adafactor":
        arguments |= {"relative_step": False, "scale_parameter": False} | settings.options
    try:
        return _factory(settings.name)(parameters, **arguments)
    except TypeError as error:
        raise StudioError(
            f"Optimizer {settings.name!r} does not take these options ({error}); check --optim.options.",
            field="optim.options",
        ) from None


class Ema:
    """Moving average of the trained weights, warmed up as diffusers' EMAModel: min(decay, (1+n)/(10+n))."""

    def __init__(self, groups: Sequence[Group], decay: float) -> None:
        self.decay, self.updates = decay, 0
        self._live = [p for g in groups if g.trains for p in g.parameters().values()]
        self.shadow = [p.detach().float().clone() for p in self._live]

    def begin(self) -> None:
        """Begin with the weights as they are."""
        self.updates = 0
        torch._foreach_copy_(self.shadow, [p.detach() for p in self._live])

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        if all(p.dtype == torch.float32 for p in self._live):
            torch._foreach_lerp_(self.shadow, [p.detach() for p in self._live], 1 - decay)
        else:
            for shadow, weight in zip(self.shadow, self._live, strict=True):
                shadow.lerp_(weight.detach().float(), 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged weights in place of the trained ones, inside the context."""
        kept = [p.detach().clone() for p in self._live]
        self._copy(self.shadow)
        try:
            yield
        finally:
            self._copy(kept)

    @torch.no_grad()
    def _copy(self, values: Sequence[Tensor]) -> None:
        torch._foreach_copy_([p.detach() for p in self._live], list(values))


class Learner:
    """Optimizer, schedule, scaler and average as one thing that steps, saves and resumes."""

    def __init__(
        self, groups: Sequence[Group], settings: Optim, loop: Loop, scaler: torch.amp.GradScaler
    ) -> None:
        self.groups, self.settings, self.clip_norm, self.scaler = groups, settings, loop.clip_norm, scaler
        self.optimizer = build_optimizer(settings, groups)
        self.one_by_one = self._one_by_one()
        from diffusers.optimization import (
            get_scheduler,
        )  # seconds, which a run's first event does not wait for

        self.schedule = get_scheduler(
            settings.schedule, self.optimizer, num_warmup_steps=settings.warmup, num_training_steps=loop.steps
        )
        self.ema = Ema(groups, settings.ema) if settings.ema else None
        self.parameters: list[nn.Parameter] = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.told: list[str] = []
        self.mode(train=True)

    def _one_by_one(self) -> OneByOne | None:
        """What steps weight by weight, where the settings ask for it; trained weights in bf16 where they do."""
        settings = self.settings
        for weight in (w for g in self.optimizer.param_groups for w in g["params"] if settings.full_bf16):
            weight.data = weight.data.to(torch.bfloat16)
        if not (settings.full_bf16 or settings.fused_backward):
            return None
        return OneByOne(self.optimizer, in_backward=settings.fused_backward)

    def mode(self, *, train: bool) -> None:
        """Schedule-free optimizers keep two sets of weights; this swaps them. Others do not care."""
        if self.settings.name == "schedule-free":
            (self.optimizer.train if train else self.optimizer.eval)()  # pyright: ignore[reportAttributeAccessIssue]  # schedulefree adds them

    def gradient_norm(self) -> Tensor:
        """Unscale and clip the gradients; gives their norm before clipping."""
        if self.one_by_one and self.one_by_one.in_backward:
            return self.one_by_one.norm()
        self.scaler.unscale_(self.optimizer)
        limit = self.clip_norm or float("inf")
        return whole(nn.utils.clip_grad_norm_(self.parameters, limit))

    def step(self) -> None:
        """One optimizer step."""
        if self.one_by_one:
            self.one_by_one.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update()

    def lr(self) -> float:
        """Learning rate of the first group."""
        return float(self.schedule.get_last_lr()[0])

    @contextlib.contextmanager
    def best_weights(self) -> Iterator[None]:
        """The weights to sample and export with: the average where there is one. Afterwards each is what it was, bit for bit."""
        swaps = self.settings.name == "schedule-free"
        kept = [p.detach().clone() for p in self.parameters] if swaps else []  # the way back is rounded
        self.mode(train=False)
        with self.ema.applied() if self.ema else contextlib.nullcontext():
            yield
        self.mode(train=True)
        if swaps:
            with torch.no_grad():
                torch._foreach_copy_([p.detach() for p in self.parameters], kept)

    def state(self) -> dict[str, Any]:
        """Everything but the weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": {"shadow": self.ema.shadow, "updates": self.ema.updates} if self.ema else {},
        }

    def load_state(self, state: dict[str, Any], name: str) -> None:
        """Take back what `state` gave, as far as the settings are what they were: a changed one is heeded, and told.

        Args:
            state: Of a checkpoint.
            name: The optimizer that it is of.

        Raises:
            StudioError: The optimizer was of other weights.
        """
        wanted = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        bases, self.told = list(self.schedule.base_lrs), []
        self.schedule.load_state_dict(state["schedule"])
        if name == self.settings.name:
            self._load_optimizer(state["optimizer"], wanted)
        else:
            self.told.append(f"optimizer: {self.settings.name}, begun anew; {name} before")
        self._rate(bases)
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self._load_average(self.ema, state["ema"])

    def _load_optimizer(self, state: dict[str, Any], wanted: list[dict[str, Any]]) -> None:
        try:
            self.optimizer.load_state_dict(state)
        except ValueError as error:
            raise StudioError(
                f"The optimizer's state does not fit these settings ({error}); resume with the settings it was made with, "
                "or choose another --optim.name, which begins anew.",
                field="optim",
            ) from None
        exact_states(self.optimizer, state["state"])
        _lay_out_as_weights(self.optimizer)
        own = {"weight_decay", *self.settings.options, *({"betas"} & wanted[0].keys())}
        for group, values in zip(self.optimizer.param_groups, wanted, strict=True):
            for key in own & values.keys():
                if group[key] != values[key]:
                    self.told.append(f"optim.{key}: {group[key]} -> {values[key]}")
                    group[key] = values[key]

    def _rate(self, bases: list[Any]) -> None:
        """Learning rates as the settings have them, where the schedule is."""
        if self.schedule.base_lrs != bases:
            self.told.append(f"optim.lr: {self.schedule.base_lrs[0]} -> {bases[0]}")
            self.schedule.base_lrs = bases
        factors = [factor(self.schedule.last_epoch) for factor in self.schedule.lr_lambdas]
        self.schedule._last_lr = [base * factor for base, factor in zip(bases, factors, strict=True)]
        for group, base, lr in zip(self.optimizer.param_groups, bases, self.schedule._last_lr, strict=True):
            group["initial_lr"], group["lr"] = base, lr

    def _load_average(self, average: Ema, state: dict[str, Any]) -> None:
        if not state:
            average.begin()
            self.told.append("average of weights: begun from the weights as they are")
            return
        average.updates = state["updates"]
        for shadow, saved in zip(average.shadow, state["shadow"], strict=True):
            shadow.copy_(laid_out_as(saved, shadow))


def _lay_out_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Give loaded moments the memory layout of their weights: fused kernels walk both in memory order."""
    for weight, moments in optimizer.state.items():
        for name, value in moments.items():
            if (
                isinstance(value, Tensor)
                and value.shape == weight.shape
                and (value.stride() != weight.stride() or type(value) is not type(weight.data))
            ):
                moments[name] = torch.empty_like(weight, dtype=value.dtype).copy_(laid_out_as(value, weight))

"""From settings to rewards, and the one place where they are called.

Axes: `b` pictures, `k` terms of a mix.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import RunFailed, StudioError, unknown
from studio.rewards import config as settings
from studio.rewards import pixels, preference
from studio.rewards.image_reward import load_image_reward
from studio.rewards.networks import load_aesthetic, load_alignment
from studio.rewards.user import UserReward
from studio.settings.serial import kind, members

Function = Callable[[Tensor, Sequence[str]], Any]
Single = (
    settings.ClipAlignment
    | settings.Compressible
    | settings.Incompressible
    | settings.Redness
    | settings.Brightness
    | settings.Aesthetic
    | settings.HpsV2
    | settings.PickScore
    | settings.ImageReward
    | settings.FaceQuality
    | settings.User
)


def reward(chosen: Single, device: torch.device | str) -> Function:
    """The function of one reward."""
    match chosen:
        case settings.ClipAlignment():
            return load_alignment(chosen, device)
        case settings.Compressible():
            return pixels.compressible
        case settings.Incompressible():
            return pixels.incompressible
        case settings.Redness():
            return pixels.redness
        case settings.Brightness():
            return pixels.brightness
        case settings.Aesthetic():
            return load_aesthetic(chosen, device)
        case settings.User():
            return UserReward(chosen)
        case _:
            return _preference(chosen, device)


def _preference(
    chosen: settings.HpsV2 | settings.PickScore | settings.ImageReward | settings.FaceQuality,
    device: torch.device | str,
) -> Function:
    match chosen:
        case settings.HpsV2():
            return preference.load_hps(chosen, device)
        case settings.PickScore():
            return preference.load_pick_score(chosen, device)
        case settings.ImageReward():
            return load_image_reward(chosen, device)
        case settings.FaceQuality():
            return preference.load_face_quality(chosen, device)
        case _:
            assert_never(chosen)


class Terms:
    """The rewards of a run by name, with their weights."""

    def __init__(self, chosen: settings.Reward | settings.NoReward, device: torch.device | str) -> None:
        self._functions: dict[str, Function] = {}
        self.weights: dict[str, float] = {}
        self._seen = Seen()
        for name, (each, weight) in _terms(chosen).items():
            self._functions[name] = reward(each, device)
            self.weights[name] = weight

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]) -> Float[Tensor, "k b"]:
        """Raw scores of every term, on the CPU; a picture that was scored before is not scored again.

        Raises:
            RunFailed: A reward broke, or gave something else than one finite number a picture; it is named.
        """
        found = [
            self._seen(partial(checked, name, function), name, images, prompts)
            for name, function in self._functions.items()
        ]
        return torch.stack(found) if found else torch.zeros(0, len(prompts))

    def graded(self, images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]) -> Float[Tensor, "k b"]:
        """Raw scores of every term with their gradient to the pictures, on their device.

        Raises:
            RunFailed: As above, or a reward has no gradient.
        """
        found = self.scored(images, prompts)
        for name, scores in zip(self._functions, found, strict=True):
            if torch.is_grad_enabled() and images.requires_grad and not scores.requires_grad:
                raise RunFailed(
                    f"Reward {name!r} has no gradient to the pictures; choose a differentiable reward, or learn with "
                    "texforce or ddpo, which need none."
                )
        return torch.stack([scores.to(images.device) for scores in found])

    def scored(self, images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]) -> list[Float[Tensor, " b"]]:
        """Raw scores of every term, always computed."""
        return [checked(name, function, images, prompts) for name, function in self._functions.items()]


class Seen:
    """Scores by picture and prompt, so that no picture is judged twice; the oldest are forgotten."""

    def __init__(self, size: int = 4096) -> None:
        """Remember at most `size` scores."""
        self._scores: dict[str, float] = {}
        self._size = size

    def __call__(
        self,
        judge: Callable[[Tensor, Sequence[str]], Tensor],
        name: str,
        images: Float[Tensor, "b 3 H W"],
        prompts: Sequence[str],
    ) -> Float[Tensor, " b"]:
        """One score a picture, on the CPU; new pictures go to the judge together."""
        keys = [
            f"{name}:{prompt}:{hashlib.blake2b(pixels.tobytes()).hexdigest()}"
            for pixels, prompt in zip(images.cpu().numpy(), prompts, strict=True)
        ]
        new = list(dict.fromkeys(row for row, key in enumerate(keys) if key not in self._scores))
        if new:
            found = judge(images[new], [prompts[row] for row in new]).float().cpu()
            self._scores |= {keys[row]: float(score) for row, score in zip(new, found, strict=True)}
        scores = torch.tensor([self._scores[key] for key in keys])
        for key in list(self._scores)[: max(0, len(self._scores) - self._size)]:
            del self._scores[key]
        return scores


def checked(
    name: str, function: Function, images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]
) -> Float[Tensor, " b"]:
    """One finite number a picture.

    Raises:
        RunFailed: Names the reward and what was wrong.
    """
    if not bool(torch.isfinite(images).all()):
        raise RunFailed(
            "Decoded pictures are not finite; try --hardware.precision fp32 or a lower --optim.lr."
        )
    try:
        given = function(images, prompts)
    except Exception as error:
        raise RunFailed(
            f"Reward {name!r} failed ({type(error).__name__}: {error}); correct it and resume."
        ) from error
    scores = torch.as_tensor(given).float()
    if scores.shape != (len(prompts),):
        raise RunFailed(
            f"Reward {name!r} gave the shape {tuple(scores.shape)}; it must give one number a picture, ({len(prompts)},)."
        )
    if not bool(torch.isfinite(scores).all()):
        bad = int((~torch.isfinite(scores)).nonzero()[0])
        raise RunFailed(
            f"Reward {name!r} gave {float(scores[bad])} for picture {bad} ({prompts[bad]!r}); it must be finite."
        )
    return scores


def _terms(chosen: settings.Reward | settings.NoReward) -> dict[str, tuple[Single, float]]:
    match chosen:
        case settings.NoReward():
            return {}
        case settings.Mix(weights=weights):
            if not weights:
                raise StudioError(
                    "A mix of rewards needs at least one; such as --reward.weights redness 1.",
                    field="reward.weights",
                )
            return {name: (_by_name(name), weight) for name, weight in weights.items()}
        case settings.User(function=function):
            return {function: (chosen, 1.0)}
        case _:
            return {kind(type(chosen)): (chosen, 1.0)}


def _by_name(name: str) -> Single:
    if ":" in name:
        return settings.User(function=name)
    table: dict[str, Any] = {kind(m): m for m in members(Single) if m is not settings.User}
    if name not in table:
        raise unknown("reward", name, table, field="reward.weights")
    return table[name]()


class Running:
    """Running mean and spread of each term, by which a mix standardizes; a reward alone stays as it is."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._count, self._sum, self._squares = 0, [0.0] * len(weights), [0.0] * len(weights)

    def __call__(self, raw: Float[Tensor, "k b"]) -> Float[Tensor, " b"]:
        """Remember raw scores, and give their weighted sum."""
        if len(self._weights) == 1:
            return raw[0] * next(iter(self._weights.values()))
        self._count += raw.shape[1]
        total = torch.zeros(raw.shape[1])
        for index, weight in enumerate(self._weights.values()):
            self._sum[index] += float(raw[index].double().sum())
            self._squares[index] += float(raw[index].double().square().sum())
            mean = self._sum[index] / self._count
            spread = max(self._squares[index] / self._count - mean**2, 0.0) ** 0.5
            total += weight * (raw[index] - mean) / max(spread, 1e-6)
        return total

    def state(self) -> dict[str, Any]:
        """The sums."""
        return {"count": self._count, "sum": list(self._sum), "squares": list(self._squares)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self._count, self._sum, self._squares = state["count"], list(state["sum"]), list(state["squares"])

"""One run in progress: its parts, and what is done between its steps."""

import dataclasses
import json
import math
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from studio.backend.core import Backend
from studio.backend.shard import Shard
from studio.catalog import drawing, methods, traits
from studio.catalog.family import Variant
from studio.catalog.run import Run
from studio.contracts.batch import Source
from studio.contracts.sampling import Request
from studio.contracts.trainer import Group, Trainer
from studio.errors import RunFailed, StudioError
from studio.records import runs
from studio.records.runs import RunFolder, share
from studio.settings import serial
from studio.training import checkpoint
from studio.training.loop import require_finite, rows, split
from studio.training.optim import Learner

Event = dict[str, Any]
SHOWN_TEXTS = 8
"""Texts of a preview that its event holds; `texts.json` beside the pictures has all."""


class Session:
    """One run in progress: its parts, and what is done between steps."""

    def __init__(self, run: Run, folder: RunFolder, trainer: Trainer, backend: Backend) -> None:
        self.folder, self.trainer, self.backend = folder, trainer, backend
        trainer.backend = backend
        with backend.seeded(run.seed):
            self.groups: list[Group] = trainer.setup(backend)
        backend.spread(dict.fromkeys(g.module for g in self.groups if g.trains))
        self.run = self._counted(run) if run.loop.epochs else run
        if run.optim.full_bf16 and backend.precision != "bf16":
            raise StudioError(
                f"optim.full_bf16 trains in bf16, and {backend.precision} was chosen here; add --hardware.precision bf16.",
                field="hardware.precision",
            )
        self.learner = Learner(self.groups, run.optim, self.run.loop, backend.scaler())
        self.step, self.saved, self.best = 0, -1, (float("-inf"), -1)
        self.started = time.time()

    @cached_property
    def source(self) -> Source:
        """The training data."""
        return self.trainer.source()

    @cached_property
    def variant(self) -> Variant | None:
        """The published model that the run trains or was made from, as far as that can be told."""
        model = serial.to_dict(self.run.method).get("model", "")
        return traits.variant_of(model) if isinstance(model, str) else None  # a new network is of none

    def _counted(self, run: Run) -> Run:
        """A run whose epochs are told in steps.

        Raises:
            StudioError: The method makes its batches itself, so that there is nothing to pass over.
        """
        if type(self.trainer).batches is not Trainer.batches:
            name = methods.card_of(run.method).name
            raise StudioError(
                f"loop.epochs counts passes over the data, and {name} makes its batches itself; set --loop.steps instead.",
                field="loop.epochs",
            )
        each = math.ceil(len(self.source) / run.loop.batch_size)
        if not each:
            raise StudioError(
                "loop.epochs counts passes over the data, and there is none; check it.", field="loop.epochs"
            )
        return dataclasses.replace(run, loop=dataclasses.replace(run.loop, steps=run.loop.epochs * each))

    def resume(self) -> None:
        """Take up the newest sound checkpoint, if there is one; damaged ones behind it make room for what is trained again."""
        path = checkpoint.latest(self.folder.checkpoints)
        if path:
            self.restore(path)
        if self.step > self.run.loop.steps:
            raise StudioError(
                f"loop.steps {self.run.loop.steps} is less than the {self.step} steps that the run has taken; leave it, or give more.",
                field="loop.steps",
            )
        for step, damaged in runs.saved(self.folder.checkpoints).items():
            if self.backend.rank == 0 and step > self.saved:
                checkpoint.set_aside(damaged)

    def restore(self, path: Path) -> None:
        """Take the weights and the state of a checkpoint.

        Raises:
            StudioError: They do not fit the settings.
        """
        checkpoint.restore_weights(path, self.groups)
        state, before = checkpoint.read_state(path), checkpoint.manifest(path)["config"]
        self.learner.load_state(state["learner"], before["optim"]["name"])
        try:
            self.trainer.load_state(state["trainer"])
        except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
            raise StudioError(
                f"Checkpoint {str(path)!r} does not hold what these settings need ({type(error).__name__}: {error}); resume "
                "with the settings it was made with."
            ) from error
        self.best = tuple(state["best"])
        self.step = self.saved = checkpoint.step_of(path)

    def save(self) -> Path | None:
        """Write a checkpoint of the step that is finished, unless it is written already."""
        if self.saved == self.step:
            return None
        path, writes = None, self.backend.rank == 0
        if writes or self.backend.sharded:
            self.learner.mode(train=True)
            state = {
                "learner": self.learner.state(),
                "trainer": self.trainer.state(),
                "best": list(self.best),
            }
            path = checkpoint.save(
                self.folder.checkpoints,
                self.step,
                self.groups,
                state,
                self.run.to_dict(),
                writes=writes,
            )
        if writes:
            checkpoint.rotate(self.folder.checkpoints, self.run.loop.keep_checkpoints, protect=[self.best[1]])
        self.saved = self.step
        self.backend.wait()
        return path

    def preview(self) -> Event | None:
        """Draw the fixed prompts from the fixed seeds, score them, and note the best step."""
        prompts = list(self.run.preview.prompts or self.trainer.prompts())
        if not prompts or (self.backend.rank and not self.backend.sharded):
            return None
        wanted = self.run.preview
        request = Request(
            prompts=prompts,
            num_images=wanted.num_images,
            seed=self.run.seed,
            steps=drawing.steps_of(wanted.steps, self.variant),
            guidance=drawing.guidance_of(wanted.guidance, self.variant),
        )
        rng = self.backend.rng(self.run.seed, 0, rows=len(prompts) * wanted.num_images)
        with self.learner.best_weights(), torch.no_grad():
            output = self.trainer.sample(request, rng)
        if self.backend.rank:  # sharded weights draw together; one process keeps the pictures
            return None
        folder = self.folder.samples / f"step-{self.step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(output.images):
            image.save(folder / f"{index}.png")
        if output.texts:
            runs.write_text(folder / "texts.json", json.dumps(list(output.texts), indent=1) + "\n")
        scores = self.trainer.score(output, request)
        if scores.get("quality", float("-inf")) > self.best[0]:
            self.best = (scores["quality"], self.step)
        shown = {"texts": list(output.texts[:SHOWN_TEXTS])} if output.texts else {}
        return {"step": self.step, "folder": str(folder), "prompts": prompts, "scores": scores, **shown}

    @torch.no_grad()
    def validate(self) -> Event | None:
        """Loss on held-out data with the same noise every time."""
        source = self.trainer.held_out()
        if source is None:
            return None
        total = min(len(source), self.run.loop.batch_size)
        with self.backend.seeded(self.run.seed), self.learner.best_weights(), self.backend.learning():
            batch = next(self.trainer.batches(source.stream(self.run.seed, 0, Shard(total, 0, total)), 0))
            rng = self.backend.rng(self.run.seed, 0, rows=rows(batch))
            with self.backend.autocast():
                loss = self.trainer.loss(self.backend.move(split(batch, 1)[0]), rng)
        require_finite({"validation loss": loss.total}, self.step)
        return {"step": self.step, "loss": float(loss.total)}

    def export(self) -> list[str]:
        """Write the trained weights in the ecosystem's formats.

        Raises:
            RunFailed: The disk is full or not writable.
        """
        if self.backend.rank:
            return []
        self.folder.export.mkdir(parents=True, exist_ok=True)
        try:
            with self.learner.best_weights():
                written = self.trainer.export(self.folder.export)
            share(self.folder.export)
        except (OSError, SafetensorError) as error:
            raise RunFailed(
                f"The weights of step {self.step} cannot be exported to {str(self.folder.export)!r} ({error}); free some "
                f"space, then run: studio export {self.folder.path}"
            ) from error
        return [str(path) for path in written]

    def facts(self) -> list[str]:
        """One line a fact, for the start."""
        trained = sum(p.numel() for p in self.learner.parameters)
        total = sum(
            p.numel() for m in {id(g.module): g.module for g in self.groups}.values() for p in m.parameters()
        )
        loop, parts = self.run.loop, ""
        if self.backend.world > 1 or loop.accumulate > 1:
            parts = f" ({self.backend.world} processes x {loop.accumulate} parts)"
        return [
            *self.backend.facts(),
            f"trainable: {trained:,} of {total:,} parameters",
            f"batch: {loop.batch_size} examples a step{parts}",
            *([f"length: {loop.epochs} epochs, {loop.steps} steps"] if loop.epochs else []),
            *self.learner.told,
            *(["validation: none, as there is no held-out data"] if self._validates_nothing() else []),
        ]

    def _validates_nothing(self) -> bool:
        return bool(self.run.loop.validate_every) and self.trainer.held_out() is None


def opened(path: str | Path) -> Session:
    """A run as it stands, without training it: for pictures from its checkpoints."""
    folder, run = runs.open_run(path)
    trainer = methods.card_of(run.method).load_trainer()(run.method)
    return Session(run, folder, trainer, Backend(run.hardware))


def at_step(session: Session, step: int) -> None:
    """Take the weights of one checkpoint.

    Raises:
        StudioError: The run kept none of this step, or it is damaged.
    """
    found = runs.saved(session.folder.checkpoints)
    if step not in found:
        kept = ", ".join(str(each) for each in sorted(found)) or "none"
        raise StudioError(
            f"There is no checkpoint of step {step}; the run keeps: {kept}.", field="checkpoint"
        )
    if reason := checkpoint.damage(found[step]):
        raise StudioError(
            f"Checkpoint {str(found[step])!r} is damaged ({reason}); choose another step.", field="checkpoint"
        )
    checkpoint.restore_weights(found[step], session.groups)

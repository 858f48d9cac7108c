"""The training loop: deterministic, and after a kill it goes on to the very same weights.

Every step's randomness comes from (seed, epoch, step), so the state is weights, optimiser and a step number.
"""

import csv
import hashlib
import io
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn

from bench.data.load import Dataset, as_pixels
from bench.errors import BenchError, first_line
from bench.models.images import Classifier, Images
from bench.registry import ModelEntry
from bench.settings.config import Train
from bench.statistics import wilson
from bench.system.environment import cores, describe, make_exact
from bench.system.files import make_folder, write_atomically, write_json
from bench.system.progress import progress
from bench.system.threads import threads
from bench.system.torch_state import torch_state_kept
from bench.training.augment import crop_and_flip
from bench.training.checkpoint_files import card_path, load_state, save_state, save_weights, state_path
from bench.training.external_checkpoints import Foreign, WatchedImages, fill_foreign
from bench.training.job_identity import Job
from bench.training.recipes.standard import Schedule, TrainingStep, cosine

LOG_FIELDS = ("epoch", "loss", "train_accuracy", "held_out_accuracy", "lr", "seconds")


def build_model(job: Job, data: Dataset) -> nn.Module:
    """The architecture with its initial weights, which the training seed determines, or those it comes with."""
    if job.foreign:
        return foreign_model(job.architecture, job.options, job.foreign, data.images, job.seed)[0]
    return initial_model(job.architecture, job.options, data.images, job.seed)


def foreign_model(
    architecture: ModelEntry, options: Mapping[str, Any], foreign: Foreign, images: Images, seed: int
) -> tuple[nn.Module, str]:
    """The architecture with a checkpoint's weights, behind the checkpoint's normalisation; and the weights' hash.

    A factory that reads mean and std of its images puts the normalisation in itself; the network of one that does not
    becomes the `body` behind it.
    """
    watched = WatchedImages.of(foreign.images(images))
    model = initial_model(architecture, options, watched, seed)
    if not watched.read:
        model = Classifier(watched, model)
    return model, fill_foreign(model, foreign, architecture)


def initial_model(architecture: ModelEntry, options: Mapping[str, Any], images: Images, seed: int) -> nn.Module:
    """What the architecture's factory makes under the seed. Raises BenchError where it raises or makes no Module."""
    # One thread: the orthogonal layer's initial weights differ in their last bits with several.
    # A factory that sets a default type or the gradient mode would set it for every row behind its own.
    with torch.random.fork_rng(devices=[]), threads(1), torch_state_kept():
        torch.manual_seed(_seed(seed, "weights"))
        try:
            model = architecture.target(images, **options)
        except BenchError:
            raise
        except Exception as error:
            raise BenchError(f"model '{architecture.name}': its factory failed, {first_line(error)}.") from error
    if not isinstance(model, nn.Module):
        raise BenchError(f"model '{architecture.name}': its factory returned {type(model).__name__}, not a Module.")
    return model


def train(job: Job, data: Dataset, folder: Path, device: torch.device, config: Train) -> Path:
    """Train until the checkpoint and its card are there; goes on where an earlier run was stopped.

    Two processes that ask for the same job train it once: the second waits.

    Returns:
        The checkpoint's path.
    """
    path = job.checkpoint(folder)
    make_folder(path.parent)
    with FileLock(path.with_suffix(".lock")):
        if not (path.exists() and card_path(path).exists()):
            make_exact()
            prepare, notes = job.recipe.traits.prepare, {}
            if prepare:
                data, notes = prepare(job, data, folder, device, config)
            run = _Run(job, data, path, device, config.save_seconds, notes)
            with threads(config.threads or training_threads(run.model)):
                run.finish()
    return path


def training_threads(model: nn.Module) -> int:
    """One for a model without convolutions, whose small products are slower on several; else one per core."""
    convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return cores() if convolutional else 1


class _Run:
    """One training run in progress."""

    def __init__(
        self,
        job: Job,
        data: Dataset,
        path: Path,
        device: torch.device,
        save_seconds: float,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        self.job, self.data, self.path, self.device = job, data, path, device
        self.notes = {"training_set": dict(notes)} if notes else {}
        self.save_seconds, settings = save_seconds, job.settings
        self.model = build_model(replace(job, options=job.training_options()), data).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings["lr"], betas=tuple(settings["betas"]))
        self.batch = min(settings["batch_size"], len(data.x_train))
        self.per_epoch = len(data.x_train) // self.batch
        self.steps = self.per_epoch * settings["epochs"]
        self.step, self.loss, self.correct, self.seconds = 0, 0.0, 0, 0.0
        self.log: list[list[float]] = []

    def finish(self) -> None:
        self._restore()
        started = saved = time.monotonic()
        spent = self.seconds
        with progress(self.steps, f"train {self.job.label} on {self.data.name} (seed {self.job.seed})") as bar:
            bar.skip(self.step)
            while self.step < self.steps:
                epoch, within = divmod(self.step, self.per_epoch)
                if within == 0 or self.step == 0:
                    self.loss, self.correct = 0.0, 0
                order = _order(self.job.seed, epoch, len(self.data.x_train))
                for index in range(within, self.per_epoch):
                    self._one_step(epoch, index, order[index * self.batch : (index + 1) * self.batch])
                    self.seconds = spent + time.monotonic() - started
                    if index + 1 == self.per_epoch:
                        self._end_epoch(epoch)
                    if time.monotonic() - saved >= self.save_seconds:
                        self._save()
                        saved = time.monotonic()
                    bar.advance(note=f"epoch {epoch + 1}/{self.job.settings['epochs']}")
        self._write_results()

    def _one_step(self, epoch: int, index: int, rows: Tensor) -> None:
        generator = torch.Generator().manual_seed(_seed(self.job.seed, "step", epoch, index))
        torch.manual_seed(_seed(self.job.seed, "global", epoch, index))
        x, y = as_pixels(self.data.x_train[rows]), self.data.y_train[rows].to(self.device)
        if self.data.augment and self.job.settings["augment"]:
            x = crop_and_flip(x, generator)
        x = x.to(self.device)
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        logits: list[Tensor] = []
        moment = TrainingStep(self.step / self.steps, generator, logits)
        hook = self.model.register_forward_hook(lambda _module, _inputs, output: logits.append(output.detach()))
        try:
            # Older torch's cache of weights hands those cast under no_grad, without a gradient, to the next forward.
            with torch.autocast(
                self.device.type, torch.bfloat16, enabled=self.job.settings["autocast"], cache_enabled=False
            ):
                loss = self.job.recipe.target(self.model, x, y, moment, **self.job.recipe_options)
        finally:
            hook.remove()
        if not bool(loss.isfinite()):
            raise BenchError(
                f"training {self.job.label}: the loss is {float(loss)} at step {self.step}; lower lr or train_tol."
            )
        self.optimizer.zero_grad()
        loss.backward()
        if self.job.settings["grad_clip"]:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.job.settings["grad_clip"])
        self.optimizer.step()
        self.step += 1
        self.loss += float(loss.detach())
        self.correct += int((logits[-1].argmax(1) == y).sum())

    def _rate(self) -> float:
        schedule: Schedule = self.job.recipe.traits.schedule or cosine
        return float(self.job.settings["lr"]) * schedule(self.step, self.steps)

    def _end_epoch(self, epoch: int) -> None:
        held_out = accuracy(self.model, self.data.x_held_out, self.data.y_held_out, self.device)
        seen = self.per_epoch * self.batch
        row = [epoch + 1, self.loss / self.per_epoch, self.correct / seen, held_out, self._rate(), self.seconds]
        self.log.append([round(value, 6) for value in row])

    def _save(self) -> None:
        save_state(
            self.path,
            {
                "identity": self.job.digest(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "loss": self.loss,
                "correct": self.correct,
                "seconds": self.seconds,
                "log": self.log,
            },
        )

    def _restore(self) -> None:
        state = load_state(self.path)
        if state is None or state["identity"] != self.job.digest():
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.loss, self.correct = state["step"], state["loss"], state["correct"]
        self.seconds, self.log = state["seconds"], state["log"]

    def _write_results(self) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([LOG_FIELDS, *self.log])
        write_atomically(self.path.with_suffix(".csv"), lambda part: part.write_text(text.getvalue(), encoding="utf-8"))
        digest = save_weights(self.path, self.model)
        write_json(card_path(self.path), self._card(digest))
        state_path(self.path).unlink(missing_ok=True)

    def _card(self, digest: str) -> dict[str, Any]:
        n = len(self.data.x_test)
        clean = accuracy(self.model, self.data.x_test, self.data.y_test, self.device)
        return {
            **self.job.identity(),
            **self.notes,
            "label": self.job.label,
            "weights": digest,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "clean_accuracy": clean,
            "clean_interval": wilson(round(clean * n), n),
            "clean_n": n,
            "held_out_accuracy": self.log[-1][3] if self.log else None,
            "seconds": round(self.seconds, 1),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "environment": describe(),
        }


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor, device: torch.device) -> float:
    """Share of uint8 images classified correctly, in eval mode; the model's mode is put back."""
    if not len(x):
        return math.nan
    mode = model.training
    model.eval()
    parts = zip(x.split(250), y.split(250), strict=True)
    hits = sum(int((model(as_pixels(a).to(device)).argmax(1).cpu() == b).sum()) for a, b in parts)
    model.train(mode)
    return hits / len(x)


def _order(seed: int, epoch: int, n: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(_seed(seed, "order", epoch)))


def _seed(seed: int, *what: int | str) -> int:
    text = "/".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

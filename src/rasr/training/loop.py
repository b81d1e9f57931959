"""Training loop, the same for every stage, model and number of processes.

Nothing random has state (see :mod:`rasr.training.rng`), a step is a function of the weights before it and its number,
and a checkpoint holds the weights and the optimizers: a run that is killed and resumed ends with the same weights, bit
for bit on the same machine, as one that was not.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from rasr.errors import ConfigError, ExtraMissing, TrainingDiverged
from rasr.files import atomic_write, write_bytes
from rasr.progress import Progress
from rasr.training.checkpoint import Checkpoint, check_run
from rasr.training.config import TrainingConfig, changed_keys
from rasr.training.data import TrainingData
from rasr.training.log import MetricsLog, RunningMeans
from rasr.training.losses import Objective
from rasr.training.machines import check_alike, together
from rasr.training.model import TrainableModel, build_trainable
from rasr.training.optimization import AveragedWeights, Optimized, learning_rate
from rasr.training.rng import seed_torch
from rasr.training.sample_cache import MakingStopped, in_words
from rasr.training.samples import batch_loader

if TYPE_CHECKING:
    from accelerate import Accelerator

    from rasr.training.batch import TrainingBatch


@dataclass(frozen=True, slots=True)
class Outcome:
    """End of a sitting."""

    step: int
    """Optimizer steps done."""
    steps: int
    """Steps wanted."""
    stopped: str
    """Empty when all steps are done; else why it stopped: ``time`` or a signal's name."""
    exported: Path
    """The file for ``rasr restore``."""


class Trainer:
    """Run in a folder: checkpoints/, samples/, tensorboard/, metrics.csv, config.json, weights."""

    def __init__(
        self,
        config: TrainingConfig,
        folder: Path,
        *,
        model: TrainableModel | None = None,
        log: Callable[[str], None] = lambda _line: None,
        on_step: Callable[[int, Mapping[str, float]], None] = lambda _step, _values: None,
    ) -> None:
        """``model`` replaces the config's preset by a model of one's own.

        ``log`` gets lines of text; ``on_step`` the number of steps done and, when a row is logged, its values. Raises
        ExtraMissing without accelerate, ConfigError when the batch cannot be cut as asked.
        """
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise ExtraMissing("Training", "train") from error
        self.config = config
        self.folder = folder
        self._given = model
        self._exported = folder / f"{config.name}.safetensors"
        self._named: set[str] = set()
        self._on_step = on_step
        self._accelerator: Accelerator = Accelerator(
            cpu=config.loop.device == "cpu", mixed_precision={"fp32": "no", "bf16": "bf16"}[config.loop.precision]
        )
        self._main = bool(self._accelerator.is_main_process)
        self._log = log if self._main else lambda _line: None
        config.check_batch(self._accelerator.num_processes)

    def run(self, *, resume: bool = False, max_minutes: float | None = None) -> Outcome:
        """Train until the last step, the time limit or a signal, saving on the way and at the end.

        The limit counts from here: preparing the data, and the views that are made between steps, included.

        Raises what :func:`check_run` does, ConfigError when the config differs from the resumed run's,
        TrainingDiverged, OutputError (disk full), and what the data and the weights raise. With several processes also
        ClusterError where one of them ends, and ConfigError where they do not begin alike. Whatever happens, the last
        complete checkpoint stays.
        """
        with together(self._accelerator):
            return self._run(resume, max_minutes)

    def _run(self, resume: bool, max_minutes: float | None) -> Outcome:
        begun = time.monotonic()
        check_run(self.config, self.folder, resume=resume)
        found = self._find_checkpoint() if resume else None
        ends = math.inf if max_minutes is None else begun + 60 * max_minutes
        try:
            self._set_up(self._preparing(ends))
        except MakingStopped:
            return Outcome(found.step if found else 0, self.config.loop.steps, "time", self._exported)
        check_alike(self._accelerator, found.step if found else 0, self._facts)
        step, seconds = 0, 0.0
        if found:
            step, seconds = self._restore(found), found.seconds
            self._log(f"resumed after step {step}")
        with _noted_signals() as signals:
            return self._train(step, seconds, signals, ends)

    def _find_checkpoint(self) -> Checkpoint | None:
        found, damaged = Checkpoint.latest(self.folder / "checkpoints")
        for sentence in damaged:
            self._log(f"passed over: {sentence}")
        if found and (changes := changed_keys(found.config, self.config)):
            raise ConfigError(
                f"{self.folder} was trained with another configuration: {'; '.join(changes)}. Change it back, or start "
                "a new run from its weights with [model.weights]."
            )
        return found

    def _set_up(self, progress: Progress) -> None:
        config, accelerator = self.config, self._accelerator
        device = accelerator.device
        self._log(f"device: {device}, {config.loop.precision}, {accelerator.num_processes} process(es)")
        seed_torch(config.seed, "model")
        model, encoder = build_trainable(config, device, self._log) if self._given is None else (self._given, None)
        self._model: TrainableModel = model
        self._model.to(device)
        self._model.train()
        if config.loop.gradient_checkpointing:
            self._model.checkpoint_gradients()
        self._trained = Optimized("model", self._model.trainable(), config.optimizer.lr, config.optimizer)
        count = sum(parameter.numel() for parameter in self._trained.parameters.values())
        self._log(f"trainable: {count / 1e6:.2f} M parameters in {len(self._trained.parameters)} tensors")
        self._objective = Objective(config, self._log).to(device)
        if config.loop.precision == "bf16":  # half as fast again for the convolutions, on a CPU with AMX and on a GPU
            for module in (self._objective, *([] if self._given else [self._model])):
                if isinstance(module, torch.nn.Module):
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
        self._averaged = AveragedWeights(self._trained.parameters, config.optimizer.ema)
        self._judge: Optimized | None = None
        if judge := self._objective.discriminator:
            lr = config.optimizer.discriminator_lr
            self._judge = Optimized("judge", judge.trainable(), lr, config.optimizer, buffers_of=judge.heads)
        # The others find what the first has put into the cache; a machine with a cache of its own has its own first.
        with accelerator.main_process_first(), accelerator.local_main_process_first():
            # Several processes would wait for one another's views at every step: there the first makes all of them now.
            lazily = accelerator.num_processes == 1
            self._data = TrainingData.prepare(config, encoder, self._log, device, lazily=lazily, progress=progress)

    def _preparing(self, ends: float) -> Progress:
        """Progress of what comes before the first step: said three times a minute, ended when the time is up."""
        alone, current = self._accelerator.num_processes == 1, ""
        begun = told = time.monotonic()
        first = 0.0

        def tell(stage: str, done: float, total: float) -> None:
            nonlocal current, begun, told, first
            now = time.monotonic()
            if stage != current:
                current, begun, first = stage, now, done
            if first < done < total and now - told > 20:
                told, left = now, (now - begun) / (done - first) * (total - done)
                self._log(f"references: {done:.0f} of {total:.0f} {stage}, {in_words(left)} left")
            if alone and now > ends:
                raise MakingStopped

        return tell

    @property
    def _facts(self) -> dict[str, str]:
        return {**self._objective.facts, "photos": self._data.digest}

    def _restore(self, found: Checkpoint) -> int:
        for name, value in self._facts.items():
            if found.facts.get(name) != value:
                raise ConfigError(f"{self.folder}: {name} is not what the run began with (its hash has changed).")
        self._trained.load(found.tensors)
        if self._judge:
            self._judge.load(found.tensors)
        for name in self._averaged.values:
            self._averaged.values[name] = found.tensors[f"average.{name}"].clone().to(self._accelerator.device)
        return found.step

    def _train(self, first: int, seconds: float, signals: list[str], ends: float) -> Outcome:
        config, accelerator = self.config, self._accelerator
        loop = config.loop
        views = self._data.views
        if views:
            views.stopping = lambda: bool(signals) or time.monotonic() > ends
        loader = batch_loader(
            self._data.maker,
            range(first, loop.steps),
            process=accelerator.process_index,
            processes=accelerator.num_processes,
            pin=accelerator.device.type == "cuda",
            before=views.ensure if views else lambda _end: None,
        )
        # A generator: the loader makes its first views when the first batch is asked for, not here.
        batches, means, started = (batch for batch in loader), RunningMeans(), time.monotonic()
        step, stopped = first, ""
        if self._main:
            (self.folder / "samples").mkdir(parents=True, exist_ok=True)
            write_bytes(f"{config.model_dump_json(indent=1)}\n".encode(), self.folder / "config.json", overwrite=True)
        with closing(MetricsLog(self.folder, first_step=first)) if self._main else nullcontext() as metrics:
            while step < loop.steps and not stopped:
                try:
                    rate = self._one_step(step, batches, means)
                except MakingStopped:  # before this step's samples were there: the weights are those of the last
                    stopped = self._stop(signals, out_of_time=True)
                    if step > first:
                        self._save(step, seconds + time.monotonic() - started)
                    break
                step += 1
                spent = time.monotonic() - started
                stopped = self._stop(signals, time.monotonic() > ends)
                last = step == loop.steps or bool(stopped)
                values: dict[str, float] = {}
                if step % loop.log_every == 0 or last:
                    values, means = means.row(accelerator, loop.batch), RunningMeans()
                    values |= {"lr": rate, "seconds": seconds + spent}
                    if metrics:
                        metrics.add(step, values)
                self._on_step(step, values)
                if step % config.validation.every == 0 or step == loop.steps:
                    self._validate(step, metrics)
                if step % loop.checkpoint_every == 0 or last:
                    self._save(step, seconds + time.monotonic() - started)
            if step == first:  # nothing was left to do: make sure that the exported weights are there
                self._save(step, seconds)
        accelerator.wait_for_everyone()
        return Outcome(step, loop.steps, stopped, self._exported)

    def _one_step(self, step: int, batches: Any, means: RunningMeans) -> float:
        config, accelerator, objective = self.config, self._accelerator, self._objective
        seed_torch(config.seed, "step", step, accelerator.process_index)
        rate = learning_rate(config.optimizer, step, config.loop.steps)
        judge = objective.adversarial(step)
        if judge:
            judge.heads.requires_grad_(False)
        self._trained.zero_grad()
        shown: list[tuple[Tensor, TrainingBatch]] = []
        for _ in range(config.loop.accumulation):
            with means.waiting():
                batch = next(batches)
            batch = batch.to(accelerator.device)
            for sentence in batch.skipped:
                if sentence not in self._named:
                    self._named.add(sentence)
                    self._log(f"skipped: {sentence}")
            with accelerator.autocast():
                prediction = self._model(batch)
                terms = objective.terms(prediction.float(), batch, step)
            loss = objective.total(terms)
            if loss.requires_grad:  # not when all references are null: nothing that is trained took part
                (loss / config.loop.accumulation).backward()  # type: ignore[no-untyped-call]  # torch's annotation
            means.add({"loss": loss, **{name: values.mean() for name, values in terms.items()}}, batch.kinds)
            shown.append((prediction.detach().float(), batch))
        means.add({"grad_norm": self._update(self._trained, rate, step, shown, means)})
        self._averaged.update(self._trained.parameters, step)
        if judge and self._judge:
            judge.heads.requires_grad_(True)
            self._judge.zero_grad()
            for prediction, batch in shown:
                with accelerator.autocast():
                    loss = objective.discriminator_loss(judge, prediction, batch, step)
                (loss / config.loop.accumulation).backward()  # type: ignore[no-untyped-call]  # torch's annotation
                means.add({"discriminator": loss})
            self._update(self._judge, rate, step, shown, means)
        means.end_step()
        return config.optimizer.lr * rate

    def _update(
        self, part: Optimized, rate: float, step: int, shown: list[tuple[Tensor, TrainingBatch]], means: RunningMeans
    ) -> Tensor:
        """Average over processes, refuse what is not finite, clip, step; return the norm."""
        norm = part.clip_gradients(self._accelerator)
        if not torch.isfinite(norm):
            names = ", ".join(name for _, batch in shown for name in batch.names)
            terms = ", ".join(f"{name} {value:.4g}" for name, value in means.latest().items())
            raise TrainingDiverged(
                f"Step {step + 1}: the gradient is not finite ({terms}; photos {names}). The last checkpoint is from "
                "before. Lower optimizer.lr or loss.gan, or use precision fp32, and go on from there."
            )
        part.step(rate)
        return norm

    def _stop(self, signals: list[str], out_of_time: bool) -> str:
        """Return why to stop now, agreed by all processes; empty to go on."""
        reason = signals[-1] if signals else "time" if out_of_time else ""
        if self._accelerator.num_processes > 1:
            wish = torch.tensor(float(bool(reason)), device=self._accelerator.device)
            if float(self._accelerator.reduce(wish, reduction="sum")):
                return reason or "another process"
        return reason

    def _validate(self, step: int, metrics: MetricsLog | None) -> None:
        validation = self._data.validation
        if validation and metrics:
            self._averaged.swap(self._trained.parameters)
            self._model.train(False)
            with self._accelerator.autocast():
                scores, grid = validation.run(self._model, self._accelerator.device, self._objective.perceptual)
            self._model.train()
            self._averaged.swap(self._trained.parameters)
            metrics.add(step, scores)
            metrics.add_picture(step, grid)
            with atomic_write(self.folder / "samples" / f"step-{step:08d}.png", overwrite=True) as file:
                Image.fromarray(grid).save(file, "PNG")
            shown = (f"{name.removeprefix('val/')} {value:.4g}" for name, value in scores.items())
            self._log(f"step {step}: {', '.join(shown)}")
        self._accelerator.wait_for_everyone()

    def _save(self, step: int, seconds: float) -> None:
        if self._main:
            tensors = self._trained.tensors()
            tensors |= {f"average.{name}": value for name, value in self._averaged.values.items()}
            if self._judge:
                tensors |= self._judge.tensors()
            Checkpoint(step, self.config, self._facts, seconds, tensors).save(self.folder / "checkpoints")
            self._averaged.swap(self._trained.parameters)
            notes = {"step": step, "config": self.config.model_dump(mode="json"), "facts": self._facts}
            self._model.export(self._exported, notes)
            self._averaged.swap(self._trained.parameters)
        self._accelerator.wait_for_everyone()


@contextmanager
def _noted_signals() -> Iterator[list[str]]:
    """Note SIGINT and SIGTERM and let the step finish; a second Ctrl-C interrupts at once."""
    noted: list[str] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(signal.Signals(number).name)

    with ExitStack() as after:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                after.callback(signal.signal, number, signal.signal(number, note))
        yield noted

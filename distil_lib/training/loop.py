"""The training loop: steps, evaluations, checkpoints, stops."""

import contextlib
import math
import signal
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from distil_lib.errors import UserError
from distil_lib.evaluation import held_out_batches, masked_lm_sums, to_figures
from distil_lib.losses import TokenCounts
from distil_lib.masking import MicroBatch
from distil_lib.student import Student
from distil_lib.teacher import MaskedLM
from distil_lib.training.compilation import compiled_step, eager
from distil_lib.training.config import PretrainConfig
from distil_lib.training.costs import step_cost
from distil_lib.training.final_model import save_final_model
from distil_lib.training.metrics_file import MetricsFile
from distil_lib.training.processes import start_workers
from distil_lib.training.progress import Throughput
from distil_lib.training.resume import load_state, save_state
from distil_lib.training.run_folder import saving
from distil_lib.training.setup import describe_run, measure_peak_flops, prepare_training
from distil_lib.training.sharding import full_tensor
from distil_lib.training.time_limit import TimeLimit, parse_duration

EVALUATION_BATCH = 64  # sequences at once
COMPILING = 2  # steps at the start that wait for the compiler
MOST_PROCESSES = 4096  # a step's random seeds are that far apart


class PretrainingRun:
    """A training run, ready to `train()`.

    Args:
        config: its settings; not changed.
        arguments: the command line, for the model's card.
        resume_hint: what is printed after a stop.
    """

    def __init__(
        self,
        config: PretrainConfig,
        arguments: list[str] | None = None,
        resume_hint: str = "go on with --resume",
    ):
        self.started = time.monotonic()
        self.setup = setup = prepare_training(config)
        self.config, self.accelerator = setup.config, setup.accelerator
        self.model, self.teacher, self.blocks = setup.model, setup.teacher, setup.blocks
        self.main = setup.accelerator.is_main_process
        self.folder = Path(config.output)
        self.arguments, self.resume_hint = arguments or [], resume_hint
        self.stop_signal = 0  # a signal's handler sets it; acted on at the end of the step
        self.bar = tqdm(disable=True)  # until training begins
        self.limit: TimeLimit | None = None
        self.metrics: MetricsFile | None = None  # the main process's, from `train` on

    # ------------------------------------------------------------------------------------ training
    def train(self) -> dict[str, float]:
        """Train to the end, or until a signal asks to stop; returns the last held-out figures."""
        try:
            return self._train()
        finally:
            self.bar.close()  # a message must not hang on the end of the progress bar
            if self.setup.lock is not None:
                self.setup.lock.release()

    def _train(self) -> dict[str, float]:
        done, extra = load_state(self.setup)
        if self.main:
            kept = extra.get("metrics_bytes", 0)
            self.metrics = MetricsFile(self.folder / "metrics.jsonl", kept)
        if self.config.log_with:
            settings = {k: str(v) for k, v in vars(self.config).items()}
            self.accelerator.init_trackers("distil", config=settings)
        self.accelerator.print(describe_run(self.setup, done), flush=True)
        # Not said for the main process, so that TQDM_DISABLE works.
        options: dict = {"dynamic_ncols": True} if self.main else {"disable": True}
        steps = self.setup.steps
        self.bar = tqdm(total=steps, initial=done, unit="step", smoothing=0.05, **options)
        # (loss, ce, mlm, cos, gradient norm) of each step since the last line. Every process holds
        # a part of each loss, and the sum is written: the main process alone brings back what was
        # saved.
        saved = torch.tensor(extra.get("window", []), device=self.setup.device) * float(self.main)
        self.window = list(saved)
        self.figures: dict[str, float] = extra.get("figures", {})
        self.progress = extra.get("progress", 0.0)
        if self.config.time_limit:
            seconds = parse_duration(self.config.time_limit)
            self.limit = TimeLimit(seconds, self.started, self.progress)
        teacher = None if self.teacher is None else self.teacher.config
        self.cost = step_cost(self.config, self._bare().config, teacher)
        self.peak = measure_peak_flops(self.setup)
        self.model.train()
        self.clock = Throughput(extra.get("seconds", 0.0), extra.get("tokens", 0))
        if self.progress < 1:  # a run that has ended by its time limit has no steps left
            done = self._train_steps(done, extra.get("positions"))
        save_final_model(
            self.setup, self.arguments, self.figures, done, self.clock.seconds, self.clock.tokens
        )
        self.accelerator.end_training()
        return self.figures

    def _train_steps(self, first: int, positions: dict[str, dict] | None) -> int:
        """The steps from `first` on; returns the number that is done at the end."""
        config, done = self.config, first
        loader = self.setup.batches(first, positions)
        # A stream has no end of its own. Only `zip` holds the iterator: an error that leaves the
        # loop ends the workers.
        for number, micro_batches in zip(
            range(first, self.setup.steps), start_workers(loader), strict=False
        ):
            # The randomness of a step (dropout) depends on nothing but seed, step and rank:
            # nothing to save, nothing to restore.
            seed = config.seed * 1_000_003 + number
            torch.manual_seed(seed * MOST_PROCESSES + self.setup.rank)
            began = time.monotonic()
            counts, places, stop, progress = self._gather_token_counts(micro_batches)
            self._set_progress(progress)
            # Autocast forgets the weights it has rounded where its outermost block ends: around all
            # micro-batches stands one that does nothing else, so each is rounded once a step.
            autocast = torch.autocast(self.setup.device.type, enabled=False)
            with autocast, compiled_step(config.compile, number + 1):
                self.window.append(self._optimizer_step(micro_batches, counts))
            self.clock.add(counts.cos, places)
            if not (self.setup.compiled and number < first + COMPILING):
                self._measured("step", began)
            done = number + 1
            last = done == self.setup.steps or self.progress >= 1
            evaluate = last or done % config.eval_every == 0
            save = last or done % config.save_every == 0
            line = evaluate or save or done % config.log_every == 0
            unfinished = {}
            if line or stop:
                # A line that is written only because of the stop is cut off again by the resumed
                # run, which finishes its window.
                length = self._sync_metrics()
                values = self._flush_metrics(done)
                if not line:
                    unfinished = {"metrics_bytes": length, "window": values.tolist()}
            self.bar.update()
            if evaluate:
                self._evaluate(done)
            if save or stop:
                self._checkpoint(done, micro_batches, unfinished)
            if stop and not last:
                self._stop(stop, done)
            if last:
                break
        return done

    def _bare(self) -> Student | MaskedLM:
        """The model without what Accelerate wraps it in."""
        return self.accelerator.unwrap_model(self.model)

    # ---------------------------------------------------------------------------------- time limit
    def _measured(self, what: str, began: float) -> None:
        if self.limit is not None:
            self.limit.measured(what, time.monotonic() - began)

    def _set_progress(self, by_time: float) -> None:
        """The learning rate follows the larger share of the run, by steps or by time."""
        if self.setup.progress is not None:
            by_steps = self.setup.schedules[0].last_epoch / self.setup.steps
            self.progress = max(self.progress, by_steps, by_time)
            self.setup.progress.progress = self.progress

    # ---------------------------------------------------------------------------------------- step
    def _gather_token_counts(
        self, micro_batches: list[MicroBatch]
    ) -> tuple[TokenCounts, int, int, float]:
        """What all processes have to know before a step, in one small exchange.

        Returns:
            The step's token counts over all processes, the number of places that are computed for
            them (padding included), whether any process was asked to stop, and the share of the
            run that is over by the clock.
        """
        mine = self.setup.step.count_tokens(micro_batches)
        places = sum(batch.input_ids.numel() for batch in micro_batches)
        share = round((self.limit.share() if self.limit else 0.0) * 1e9)
        shared = torch.tensor(
            [mine.ce, mine.mlm, mine.cos, places, self.stop_signal, share], dtype=torch.int64
        )
        if self.setup.world > 1:
            shared = self.accelerator.gather(shared.to(self.setup.device)[None]).cpu()
            shared = torch.cat([shared[:, :4].sum(0), shared[:, 4:].amax(0)])
        ce, mlm, cos, places, stop, share = shared.tolist()
        return TokenCounts(ce, mlm, cos), places, stop, share / 1e9

    def _optimizer_step(self, micro_batches: list[MicroBatch], counts: TokenCounts) -> torch.Tensor:
        """Forward and backward through this process's micro-batches, and one update.

        Returns:
            (5,) loss, ce, mlm, cos and the norm of the gradient.
        """
        parts = torch.zeros(4, device=self.setup.device)
        for i, micro_batch in enumerate(micro_batches):
            last = i + 1 == len(micro_batches)
            if self.setup.graphs:  # what the micro-batch before has computed may be overwritten
                torch.compiler.cudagraph_mark_step_begin()
            with (
                contextlib.nullcontext() if last else self.accelerator.no_sync(self.model),
                self.accelerator.autocast(),
            ):
                out = self.setup.step(micro_batch, counts)
                # Distributed training averages gradients over processes; each holds its part of a
                # sum, so undo the average.
                self.accelerator.backward(out.loss * self.setup.world)
            parts += torch.stack([out.loss.detach(), out.ce, out.mlm, out.cos]).to(parts)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        for optimizer, schedule in zip(self.setup.optimizers, self.setup.schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=not self.setup.graphs)
        return torch.cat([parts, full_tensor(torch.as_tensor(norm)).to(parts).reshape(1)])

    # -------------------------------------------------------------------------- metrics, evaluation
    def _flush_metrics(self, step: int) -> torch.Tensor:
        """Write the mean losses of the steps since the last line; returns those of each step."""
        values, self.window = torch.stack(self.window), []
        # Each process holds a part of every mean.
        values[:, :4] = self.accelerator.reduce(values[:, :4].contiguous(), "sum")
        bad = (~torch.isfinite(values)).any(1).nonzero()
        if len(bad):
            wrong, batch = step - len(values) + int(bad[0]), self.config.batch_size
            self._not_finite(
                f"The loss or its gradient is not finite in step {wrong + 1} (sequences "
                f"{wrong * batch} to {(wrong + 1) * batch - 1} of the run)."
            )
        names = ("loss", "ce", "mlm", "cos", "norm")
        row = dict(zip(names, values.mean(0).tolist(), strict=True))
        row |= {"lr": self.setup.schedules[0].get_last_lr()[0]}
        row |= self.clock.take(self.cost.total, self.peak)
        row["head_flops_fraction"] = round(self.cost.heads / self.cost.total, 4)
        row |= {"tokens": self.clock.tokens, "seconds": round(self.clock.seconds, 2)}
        self._write({"step": step} | row)
        shown = {k: f"{row[k]:.3f}" for k in names[:4] if row[k]}
        shown |= {"tok/s": f"{row['tokens_per_second']:,.0f}", "mfu": f"{row['mfu']:.0%}"}
        self.bar.set_postfix(shown, refresh=False)
        return values

    def _not_finite(self, problem: str) -> None:
        saved = sorted((self.folder / "checkpoints").glob("step-*"))
        raise UserError(
            problem,
            f"The last good checkpoint is {saved[-1] if saved else 'none yet'}. Choose a lower "
            "learning rate, a longer warm-up or the precision fp32.",
            setting=("learning_rate", "warmup_ratio", "precision"),
        )

    def _sync_metrics(self) -> int:
        """Flush the lines to the disk; returns their length, 0 where no file is written."""
        if self.metrics is None:
            return 0
        with saving(self.metrics.path):
            return self.metrics.sync()

    def _write(self, row: dict) -> None:
        if self.metrics is not None:
            with saving(self.metrics.path):
                self.metrics.write(row)
        if self.config.log_with:
            values = {k: v for k, v in row.items() if k != "step"}
            self.accelerator.log(values, step=row["step"])

    def _evaluate(self, step: int) -> None:
        began = time.monotonic()
        self.figures = self.evaluate()
        if not all(math.isfinite(value) for value in self.figures.values()):
            self._not_finite(f"The held-out figures are not finite after step {step}.")
        self._write({"step": step} | {k: round(v, 6) for k, v in self.figures.items()})
        if self.main:
            said = ", ".join(f"{k} {v:.4f}" for k, v in self.figures.items())
            self.bar.write(f"step {step}: held-out {said}", file=sys.stderr)
        self._measured("evaluate", began)
        self.clock.restart()

    def evaluate(self) -> dict[str, float]:
        """Held-out figures over all processes."""
        setup = self.setup
        # Where weights are sharded, each pass needs all processes: all compute all of it.
        rank, world = (0, 1) if setup.sharded else (setup.rank, setup.world)
        size, held_out = self.config.eval_blocks, self.blocks.held_out
        batches = held_out_batches(held_out, setup.tokenizer, size, EVALUATION_BATCH, rank, world)
        with self.accelerator.autocast(), eager(setup.compiled):
            sums = masked_lm_sums(self._bare(), batches, self.teacher, setup.device)
        if world > 1:
            sums = self.accelerator.reduce(sums.to(setup.device), "sum").cpu()
        return to_figures(sums, self.teacher is not None)

    # ------------------------------------------------------------------------------- save and stop
    def _checkpoint(self, step: int, micro_batches: list[MicroBatch], unfinished: dict) -> None:
        """Save. unfinished: what replaces `metrics_bytes`, and the window, in an early stop."""
        began = time.monotonic()
        length = self._sync_metrics()
        state = {
            "metrics_bytes": length,
            "figures": self.figures,
            "seconds": self.clock.seconds,
            "tokens": self.clock.tokens,
            "progress": self.progress,
        }
        save_state(self.setup, step, micro_batches, state | unfinished)
        self._measured("save", began)
        self.clock.restart()

    def _stop(self, number: int, step: int) -> None:
        """End the program after a signal, with the exit code that shells expect."""
        self.bar.close()
        if self.main:
            name = signal.Signals(number).name
            print(f"stopped by {name} and saved at step {step}; {self.resume_hint}", flush=True)
        self.accelerator.end_training()
        sys.exit(128 + number)

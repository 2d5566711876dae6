"""The training loop: steps, evaluations, checkpoints, stops."""

import contextlib
import signal
import sys
import time
from pathlib import Path

import torch
from accelerate.utils import gather_object
from tqdm import tqdm

from distil_lib.common.files import atomic_folder
from distil_lib.common.hardware import describe_machine, matmul_ceiling
from distil_lib.errors import UserError
from distil_lib.evaluation import held_out_batches, masked_lm_sums, to_figures
from distil_lib.losses import TokenCounts
from distil_lib.masking import MicroBatch
from distil_lib.student import Student
from distil_lib.teacher import MaskedLM
from distil_lib.training.checkpoint import load_checkpoint, save_checkpoint
from distil_lib.training.config import PretrainConfig
from distil_lib.training.costs import StepCost, step_cost
from distil_lib.training.metrics_file import MetricsFile, plot_curves
from distil_lib.training.model_card import model_card
from distil_lib.training.setup import TrainingSetup
from distil_lib.training.sharding import full_state_dict, whole


class Run(TrainingSetup):
    """A training run, ready to `train()`."""

    def __init__(self, config: PretrainConfig, arguments: list[str] | None = None):
        super().__init__(config)
        self.arguments = arguments or []
        self.stop_signal, self.remedy = 0, "go on with --resume"  # what is said after a stop
        self.bar: tqdm | None = None

    # --------------------------------------------------------------------------------------------------------------- training
    def train(self) -> dict[str, float]:
        """Train to the end, or until a signal asks to stop; returns the last held-out figures."""
        config, folder = self.config, Path(self.config.output)
        done, extra = 0, {}
        bare = self.accelerator.unwrap_model(self.model)
        if self.checkpoint:
            done, extra = load_checkpoint(self.checkpoint, bare, self.optimizers, self.schedules)
            if extra.get("text") != self.blocks.content_hash:
                raise UserError(
                    f"The text of {self.config.corpus} is not what {self.checkpoint} was trained on.",
                    "Resume where files and packages are those of the start, or begin anew with another --output.",
                )
        main = self.accelerator.is_main_process
        metrics = (
            MetricsFile(folder / "metrics.jsonl", extra.get("metrics_bytes", 0)) if main else None
        )
        self._print_summary(done)
        division = [self.world, config.micro_batch_size]
        if (before := extra.get("division", division)) != division:
            self.accelerator.print(
                "Until here with {} process(es), micro-batches of {}; from here with {} and {}: ".format(
                    *before, *division
                )
                + "the same curve, but for rounding no longer the same bits.",
                flush=True,
            )
        if config.log_with:
            self.accelerator.init_trackers(
                "distil", config={k: str(v) for k, v in vars(config).items()}
            )
        hidden = (
            {} if main else {"disable": True}
        )  # not said for the main process, so that TQDM_DISABLE works
        bar = self.bar = tqdm(
            total=self.steps,
            initial=done,
            unit="step",
            dynamic_ncols=True,
            smoothing=0.05,
            **hidden,
        )
        # (loss, ce, mlm, cos, gradient norm) of the steps since the last line, on the device; the main process brings back those saved
        window = [
            torch.tensor(v, device=self.device) * (1 if main else 0)
            for v in extra.get("window", [])
        ]
        cost, ceiling = self._cost(), self._measure_peak_flops()
        elapsed, tokens, clock, fresh_tokens, computed = (
            extra.get("seconds", 0.0),
            extra.get("tokens", 0),
            time.perf_counter(),
            0,
            0,
        )
        figures: dict[str, float] = extra.get("figures", {})

        self.model.train()
        batches = self._batches(done, extra.get("positions"))
        for number, micro_batches in zip(
            range(done, self.steps), batches, strict=False
        ):  # a stream has no end of its own
            # The randomness of a step (dropout) depends on nothing but seed, step and rank: nothing to save, nothing to restore.
            torch.manual_seed((config.seed * 1_000_003 + number) * 4096 + self.rank)
            counts, places, stop = self._gather_token_counts(micro_batches)
            window.append(self._optimizer_step(micro_batches, counts))
            fresh_tokens, computed = fresh_tokens + counts.cos, computed + places
            step, last = number + 1, number + 1 == self.steps
            evaluate, save = (
                last or step % config.eval_every == 0,
                last or step % config.save_every == 0,
            )
            line = evaluate or save or step % config.log_every == 0
            if line or stop:
                row, values = self._flush_metrics(step, window)
                # A line that is written only because of the stop is cut off again by the resumed run, which finishes its window.
                resume = (
                    {}
                    if line or not main
                    else {"metrics_bytes": metrics.bytes, "window": values.tolist()}
                )
                now = time.perf_counter()
                row["tokens_per_second"] = round(speed := fresh_tokens / (now - clock), 1)
                row |= {
                    "mfu": round(speed * cost.total / ceiling, 4),
                    "fill": round(fresh_tokens / computed, 4),
                }
                row["heads"] = round(cost.heads / cost.total, 4)
                elapsed, tokens, clock, fresh_tokens, computed, window = (
                    elapsed + now - clock,
                    tokens + fresh_tokens,
                    now,
                    0,
                    0,
                    [],
                )
                self._write(metrics, row | {"tokens": tokens, "seconds": round(elapsed, 2)}, step)
                shown = {k: f"{row[k]:.3f}" for k in ("loss", "ce", "mlm", "cos") if row[k]}
                shown |= {"tok/s": f"{speed:,.0f}"} | {
                    name: f"{row[name]:.0%}" for name in ("mfu", "fill", "heads")
                }
                bar.set_postfix(shown, refresh=False)
            bar.update()
            if evaluate:
                figures = self.evaluate()
                self._write(
                    metrics, {"step": step} | {k: round(v, 6) for k, v in figures.items()}, step
                )
                if main:
                    bar.write(
                        f"step {step}: held-out "
                        + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()),
                        file=sys.stderr,
                    )
                clock = time.perf_counter()
            if save or stop:
                extra = {
                    "text": self.blocks.content_hash,
                    "positions": self._stream_state(micro_batches),
                    "figures": figures,
                }
                extra |= {
                    "division": division,
                    "metrics_bytes": main and metrics.bytes,
                    "seconds": elapsed,
                    "tokens": tokens,
                } | resume
                save_checkpoint(
                    folder / "checkpoints",
                    step,
                    bare,
                    self.optimizers,
                    self.schedules,
                    extra,
                    config.save_total_limit,
                    write=main,
                )
                clock = time.perf_counter()
            if stop and not last:
                bar.close()
                if main:
                    print(
                        f"stopped by {signal.Signals(stop).name} and saved at step {step}; {self.remedy}",
                        flush=True,
                    )
                self.accelerator.end_training()
                sys.exit(128 + stop)
        bar.close()
        model = self._whole_model()
        if main:
            self._finish(folder, model, figures, elapsed, tokens)
        self.accelerator.end_training()
        return figures

    def _cost(self) -> StepCost:
        """FLOPs of the step, per token."""
        model = self.accelerator.unwrap_model(self.model)
        return step_cost(
            self.config, model.config, None if self.teacher is None else self.teacher.config
        )

    def _measure_peak_flops(self) -> float:
        """FLOP/s of matrix products over all processes, each measured while the others compute too."""
        dtype = torch.bfloat16 if self.config.precision == "bf16" else torch.float32
        mine = torch.tensor(matmul_ceiling(self.device, dtype), device=self.device)
        return self.accelerator.reduce(mine, "sum").item()

    def _gather_token_counts(self, micro_batches: list[MicroBatch]) -> tuple[TokenCounts, int, int]:
        """The step's token counts over all processes, the number of places that are computed for them, be they padding or not, and
        whether any process was asked to stop: one small exchange."""
        mine = self.step.count_tokens(micro_batches)
        places = sum(batch.input_ids.numel() for batch in micro_batches)
        shared = torch.tensor(
            [mine.ce, mine.mlm, mine.cos, places, self.stop_signal], dtype=torch.int64
        )
        if self.world > 1:
            shared = self.accelerator.gather(shared.to(self.device)[None]).cpu()
            shared = torch.cat([shared[:, :4].sum(0), shared[:, 4:].amax(0)])
        ce, mlm, cos, places, stop = shared.tolist()
        return TokenCounts(ce, mlm, cos), places, stop

    def _stream_state(self, micro_batches: list[MicroBatch]) -> dict[str, dict]:
        """Where each shard of a stream stands after this step, gathered from all processes; nothing if the corpus is at hand."""
        mine = getattr(micro_batches, "state", {})
        return (
            {k: v for each in gather_object([mine]) for k, v in each.items()}
            if self.blocks.streaming
            else {}
        )

    def _optimizer_step(self, micro_batches: list[MicroBatch], counts: TokenCounts) -> torch.Tensor:
        """Forward and backward through this process's micro-batches, and one update. Returns (loss, ce, mlm, cos, norm)."""
        parts = torch.zeros(4, device=self.device)
        for i, micro_batch in enumerate(micro_batches):
            last = i + 1 == len(micro_batches)
            with (
                contextlib.nullcontext() if last else self.accelerator.no_sync(self.model),
                self.accelerator.autocast(),
            ):
                out = self.step(micro_batch.to(self.device), counts)
                # Distributed training averages gradients over processes; each holds its part of a sum, so undo the average.
                self.accelerator.backward(out.loss * self.world)
            parts += torch.stack([out.loss.detach(), out.ce, out.mlm, out.cos]).to(parts)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return torch.cat([parts, whole(torch.as_tensor(norm)).to(parts).reshape(1)])

    def _flush_metrics(
        self, step: int, window: list[torch.Tensor]
    ) -> tuple[dict[str, float], torch.Tensor]:
        """The mean losses of the steps since the last line, and those of each step (steps, 5). Raises `UserError` if one is not finite."""
        values = torch.stack(window)
        values[:, :4] = self.accelerator.reduce(
            values[:, :4].contiguous(), "sum"
        )  # each process holds a part of every mean
        bad = (~torch.isfinite(values)).any(1).nonzero()
        if len(bad):
            wrong = step - len(window) + int(bad[0])
            saved = sorted((Path(self.config.output) / "checkpoints").glob("step-*"))
            raise UserError(
                f"The loss or its gradient is not finite in step {wrong + 1} (sequences {wrong * self.config.batch_size} to "
                f"{(wrong + 1) * self.config.batch_size - 1} of the run).",
                f"The last good checkpoint is {saved[-1] if saved else 'none yet'}. Lower --learning_rate or lengthen --warmup_ratio, "
                "or try --precision fp32.",
            )
        loss, ce, mlm, cos, norm = values.mean(0).tolist()
        lr = self.schedules[0].get_last_lr()[0]
        return {
            "step": step,
            "loss": loss,
            "ce": ce,
            "mlm": mlm,
            "cos": cos,
            "norm": norm,
            "lr": lr,
        }, values

    def evaluate(self) -> dict[str, float]:
        """Held-out figures over all processes."""
        # Where weights are sharded, each pass needs all processes: all compute all of it.
        rank, world = (0, 1) if self.sharded else (self.rank, self.world)
        batches = held_out_batches(
            self.blocks.held_out, self.tokenizer, self.config.eval_blocks, 64, rank, world
        )
        with self.accelerator.autocast():
            model = self.accelerator.unwrap_model(self.model)
            sums = masked_lm_sums(model, batches, self.teacher, self.device)
        if world > 1:
            sums = self.accelerator.reduce(sums.to(self.device), "sum").cpu()
        return to_figures(sums, self.teacher is not None)

    # -------------------------------------------------------------------------------------------------------------- messages
    def _print_summary(self, done: int) -> None:
        parameters = sum(p.numel() for p in self.accelerator.unwrap_model(self.model).parameters())
        kind = (
            f"student of {self.config.teacher}"
            if self.teacher is not None
            else f"BERT from {self.config.init_from or 'nothing'}"
        )
        self.accelerator.print(
            f"{kind}: {parameters:,} parameters; {self.world} process(es) on {self.device.type}"
            f"{', sharded' if self.sharded else ''}, {self.config.precision}, "
            f"{torch.get_num_threads()} thread(s) each; steps {done} to {self.steps} of {self.config.batch_size} x "
            f"{self.config.block_size} tokens from {self.config.corpus}",
            flush=True,
        )

    def _write(self, metrics: MetricsFile | None, row: dict, step: int) -> None:
        if metrics is not None:
            metrics.write(row)
        if self.config.log_with:
            self.accelerator.log({k: v for k, v in row.items() if k != "step"}, step=step)

    def _whole_model(self) -> Student | MaskedLM:
        """The trained model; on the main process alone where it was sharded, because only there it has to fit."""
        bare = self.accelerator.unwrap_model(self.model)
        if not self.sharded:
            return bare
        state = full_state_dict(bare, self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            bare = self._new_model()
            bare.load_state_dict(state)
        return bare

    def _finish(
        self,
        folder: Path,
        model: Student | MaskedLM,
        figures: dict[str, float],
        seconds: float,
        tokens: int,
    ) -> None:
        """Write `curves.png` and `model/`."""
        plot_curves(folder)
        model = model.to(getattr(torch, self.config.save_dtype))
        shape = f"{model.config.num_hidden_layers} layers x {model.config.hidden_size}"
        record = {
            "shape": shape,
            "fingerprint": self.blocks.content_hash,
            "tokens": tokens,
            "steps": self.steps,
            "minutes": seconds / 60,
            "tokens_per_second": tokens / max(seconds, 1e-9),
            "processes": self.world,
            "precision": self.config.precision,
        }
        with atomic_folder(folder / "model") as beside:
            model.save_pretrained(beside)
            self.tokenizer.save_pretrained(beside)
            (beside / "README.md").write_text(
                model_card(self.config, self.arguments, record, figures, describe_machine())
            )
            (beside / "curves.png").write_bytes((folder / "curves.png").read_bytes())
        print(
            f"model in {folder / 'model'}: "
            + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()),
            flush=True,
        )

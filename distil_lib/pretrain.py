"""Pretrain a teacher, or distil a student from one.

    accelerate launch distil_lib/pretrain.py --preset mini                # distil the default student
    accelerate launch distil_lib/pretrain.py --preset mini-teacher        # pretrain the default teacher
    accelerate launch distil_lib/pretrain.py --preset mini --resume       # go on after a stop

Section 3 of Sanh et al. (2019). The mean of each loss is taken over the tokens of the whole batch, wherever its parts are computed;
gradients are exchanged once per optimizer step. So the same preset gives the same curve on any number of processes.
"""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, broadcast_object_list, gather_object, set_seed
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from distil_lib.batches import MicroBatch, StepBatches, StreamBatches
from distil_lib.blocks import Blocks, load_blocks, load_tokenizer
from distil_lib.checkpoint import load_checkpoint, save_checkpoint, whole_folder
from distil_lib.config import PretrainConfig, parse_arguments
from distil_lib.distillation import DistillationStep
from distil_lib.errors import UserError, exit_on_user_error
from distil_lib.evaluation import held_out_batches, masked_lm_sums, to_figures
from distil_lib.hardware import default_threads, describe_machine, on_cpu, probe_precision
from distil_lib.initialization import initialize_student, skipped_positions, student_config
from distil_lib.losses import TokenCounts, TripleLoss
from distil_lib.masking import DynamicMasking
from distil_lib.optimization import build_optimizers, linear_schedule
from distil_lib.paths import locate
from distil_lib.run_folder import MetricsFile, model_card, open_run, plot_curves, saved_precision
from distil_lib.sharding import name_layers, sharding, whole, whole_state
from distil_lib.student import Student
from distil_lib.teacher import MaskedLM, check_vocabulary, load_teacher, new_teacher


class Run:
    """Everything a training run consists of, ready to `train()`."""

    def __init__(self, config: PretrainConfig, arguments: list[str] | None = None):
        self.config, self.arguments = config, arguments or []
        sharding("fp32")  # refuses what would be wrong before any process waits for another
        state = PartialState(cpu=on_cpu())
        if state.device.type == "cpu":
            torch.set_num_threads(config.threads or default_threads())
        precision = [config.precision]
        if config.precision == "auto":  # a resumed run keeps what it was started with
            precision = [saved_precision(config) or probe_precision(state.device)]
        config.precision = broadcast_object_list(precision)[0]  # all processes must agree
        trackers = [str(tracker) for tracker in get_available_trackers()]
        if config.tracker and config.tracker not in trackers:
            installed = ", ".join(trackers) or "none"
            raise UserError(f"The tracker {config.tracker!r} is unknown or not installed.", f"Installed: {installed}.")
        self.accelerator = Accelerator(
            mixed_precision="bf16" if config.precision == "bf16" else "no",
            log_with=config.tracker,
            project_dir=config.output,
            fsdp_plugin=sharding(config.precision),
        )
        self.sharded = self.accelerator.distributed_type == DistributedType.FSDP
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        if config.batch_size < self.world:
            raise UserError(f"A batch of {config.batch_size} cannot be shared by {self.world} processes.", "Raise --batch_size.")

        set_seed(config.seed)
        self.tokenizer = load_tokenizer(locate(config.tokenizer))
        self.teacher = self._load_teacher()
        model = self._new_model()
        self.blocks = self._load_blocks()
        self.steps, self.sequences = self._length()
        with self._main_process_decides():
            self.checkpoint = open_run(config) if self.accelerator.is_main_process else None
        self.checkpoint = broadcast_object_list([self.checkpoint])[0]

        betas = (config.adam_beta1, config.adam_beta2)
        optimizers = build_optimizers(model, config.optimizer, config.learning_rate, config.weight_decay, betas, config.adam_eps)
        name_layers(model)
        self.model, *self.optimizers = self.accelerator.prepare(model.to(self.device), *optimizers)
        self.schedules = [linear_schedule(o, max(round(config.warmup * self.steps), 1), self.steps) for o in optimizers]
        loss = TripleLoss(config.alpha_ce, config.alpha_mlm, config.alpha_cos, config.temperature)
        self.step = DistillationStep(self.model, self.teacher, loss, config.soft_targets)
        self.stop_signal = 0
        self.bar: tqdm | None = None

    # ------------------------------------------------------------------------------------------------------------- set-up
    def _load_teacher(self) -> MaskedLM | None:
        if self.config.teacher is None:
            return None
        teacher = load_teacher(locate(self.config.teacher), self.tokenizer, getattr(torch, self.config.teacher_dtype))
        return teacher.to(self.device)

    def _new_model(self) -> Student | MaskedLM:
        config = self.config
        if self.teacher is None:
            if config.alpha_ce or config.alpha_cos:
                raise UserError("L_ce and L_cos need a teacher.", "Pass --teacher, or set --alpha_ce 0 --alpha_cos 0 to pretrain a BERT.")
            # On a CPU the backward pass of fused attention is slow where blocks are short (4 times at 64 tokens, bf16).
            attention = "eager" if self.device.type == "cpu" and config.block_size <= 128 else "sdpa"
            if config.start_from is not None:
                model = load_teacher(locate(config.start_from), self.tokenizer).to_training(config.dropout, attention)
            else:
                shape = (config.hidden_size, config.hidden_layers, config.heads)
                model = new_teacher(self.tokenizer, *shape, dropout=config.dropout, attention=attention)
            self._check_length(model)
            return model
        choice, layers = config.layer_choice(), self.teacher.config.num_hidden_layers
        if choice is None:
            model = Student(student_config(self.teacher.config, config.student_layers or layers // 2, config.dropout))
        else:
            model = initialize_student(
                self.teacher, choice, config.student_layers, copy_head=config.copy_head, dropout=config.dropout, seed=config.seed
            ).float()
        check_vocabulary(model.config.vocab_size, self.tokenizer, config.teacher)
        self._check_length(model)
        if config.freeze_positions:
            model.distilbert.embeddings.position_embeddings.requires_grad_(False)
        return model

    def _check_length(self, model: Student | MaskedLM) -> None:
        longest = model.config.max_position_embeddings - skipped_positions(model.config)
        if (block := self.config.block_size) > longest:
            raise UserError(f"The model knows {longest} positions; a block has {block} tokens.", f"Choose a --block_size up to {longest}.")

    def _load_blocks(self) -> Blocks:
        """The main process of each machine makes the cache; the others wait, then read it."""
        error = None
        # The first reading of a large corpus takes hours: longer than processes otherwise wait for each other.
        patient = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=2)) if self.world > 1 else None
        for turn in (True, False):
            if self.accelerator.is_local_main_process == turn:
                try:
                    blocks = load_blocks(self.config.corpus, self.tokenizer, self.config.block_size, self.config.streaming)
                except UserError as raised:  # not before the others have been let go on, lest they wait for ever
                    error = raised
            if patient is not None:
                torch.distributed.barrier(patient)
        if error is not None:
            raise error
        if not blocks.streaming and len(blocks.train) < self.config.batch_size:
            raise UserError(
                f"The corpus gives {len(blocks.train)} blocks of {self.config.block_size} tokens, less than a batch of "
                f"{self.config.batch_size}.",
                "Give more text, or lower --batch_size or --block_size.",
            )
        return blocks

    def _length(self) -> tuple[int, int | None]:
        """(optimizer steps, sequences they read)."""
        config = self.config
        if config.max_steps:
            return config.max_steps, None
        if self.blocks.streaming:
            raise UserError("A corpus that streams has no known length.", "Say how long to train by --max_steps.")
        sequences = max(round(config.epochs * len(self.blocks.train)), 1)
        return -(-sequences // config.batch_size), sequences

    @contextlib.contextmanager
    def _main_process_decides(self) -> Iterator[None]:
        """Let every process raise the `UserError` that the main one met, lest the others wait for it for ever."""
        error = None
        try:
            yield
        except UserError as raised:
            error = raised
        error = broadcast_object_list([error])[0]
        if error is not None:
            raise error

    def _batches(self, start: int, positions: dict[str, dict] | None = None) -> DataLoader:
        """The steps from `start` on; `positions`: where a resumed run stood in its stream."""
        config = self.config
        masking = DynamicMasking(self.tokenizer, config.mlm_probability, config.mask_smoothing, config.seed, self.blocks.counts)
        shared = (self.blocks.train, masking, config.batch_size, config.micro_batch_size)
        pin = self.device.type == "cuda"
        if self.blocks.streaming:
            batches = StreamBatches(*shared, rank=self.rank, world=self.world, start=start, positions=positions)
            return DataLoader(batches, batch_size=None, num_workers=min(config.workers, 1), pin_memory=pin)
        batches = StepBatches(*shared, seed=config.seed, rank=self.rank, world=self.world, total=self.sequences)
        return DataLoader(batches, batch_size=None, sampler=range(start, self.steps), num_workers=config.workers, pin_memory=pin)

    # --------------------------------------------------------------------------------------------------------------- training
    def train(self) -> dict[str, float]:
        """Train to the end, or until a signal asks to stop; returns the last held-out figures."""
        config, folder = self.config, Path(self.config.output)
        done, extra = 0, {}
        bare = self.accelerator.unwrap_model(self.model)
        if self.checkpoint:
            done, extra = load_checkpoint(self.checkpoint, bare, self.optimizers, self.schedules)
            if extra.get("text") != self.blocks.digest:
                raise UserError(
                    f"The text of {self.config.corpus} is not what {self.checkpoint} was trained on.",
                    "Resume where files and packages are those of the start, or begin anew with another --output.",
                )
        main = self.accelerator.is_main_process
        metrics = MetricsFile(folder / "metrics.jsonl", extra.get("metrics_bytes", 0)) if main else None
        self._say_hello(done)
        division = [self.world, config.micro_batch_size]
        if (before := extra.get("division", division)) != division:
            self.accelerator.print(
                "Until here with {} process(es), micro-batches of {}; from here with {} and {}: ".format(*before, *division)
                + "the same curve, but for rounding no longer the same bits.",
                flush=True,
            )
        if config.tracker:
            self.accelerator.init_trackers("distil", config={k: str(v) for k, v in vars(config).items()})
        hidden = {} if main else {"disable": True}  # not said for the main process, so that TQDM_DISABLE works
        bar = self.bar = tqdm(total=self.steps, initial=done, unit="step", dynamic_ncols=True, smoothing=0.05, **hidden)
        # (loss, ce, mlm, cos, gradient norm) of the steps since the last line, on the device; the main process brings back those saved
        window = [torch.tensor(v, device=self.device) * (1 if main else 0) for v in extra.get("window", [])]
        elapsed, tokens, clock, fresh_tokens = extra.get("seconds", 0.0), extra.get("tokens", 0), time.perf_counter(), 0
        figures: dict[str, float] = extra.get("figures", {})

        self.model.train()
        batches = self._batches(done, extra.get("positions"))
        for number, micro_batches in zip(range(done, self.steps), batches, strict=False):  # a stream has no end of its own
            # The randomness of a step (dropout) depends on nothing but seed, step and rank: nothing to save, nothing to restore.
            torch.manual_seed((config.seed * 1_000_003 + number) * 4096 + self.rank)
            counts, stop = self._agree(micro_batches)
            window.append(self._optimizer_step(micro_batches, counts))
            fresh_tokens += counts.cos
            step, last = number + 1, number + 1 == self.steps
            evaluate, save = last or step % config.eval_every == 0, last or step % config.save_every == 0
            line = evaluate or save or step % config.log_every == 0
            if line or stop:
                row, values = self._close_window(step, window)
                # A line that is written only because of the stop is cut off again by the resumed run, which finishes its window.
                resume = {} if line or not main else {"metrics_bytes": metrics.bytes, "window": values.tolist()}
                now = time.perf_counter()
                row["tokens_per_second"] = round(fresh_tokens / (now - clock), 1)
                elapsed, tokens, clock, fresh_tokens, window = elapsed + now - clock, tokens + fresh_tokens, now, 0, []
                self._write(metrics, row | {"tokens": tokens, "seconds": round(elapsed, 2)}, step)
                shown = {k: f"{row[k]:.3f}" for k in ("loss", "ce", "mlm", "cos") if row[k]}
                bar.set_postfix(shown | {"tok/s": f"{row['tokens_per_second']:,.0f}"}, refresh=False)
            bar.update()
            if evaluate:
                figures = self.evaluate()
                self._write(metrics, {"step": step} | {k: round(v, 6) for k, v in figures.items()}, step)
                bar.write(f"step {step}: held-out " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()), file=sys.stderr)
                clock = time.perf_counter()
            if save or stop:
                extra = {"text": self.blocks.digest, "positions": self._positions(micro_batches), "figures": figures}
                extra |= {"division": division, "metrics_bytes": main and metrics.bytes, "seconds": elapsed, "tokens": tokens} | resume
                save_checkpoint(folder / "checkpoints", step, bare, self.optimizers, self.schedules, extra, config.keep, write=main)
                clock = time.perf_counter()
            if stop and not last:
                bar.close()
                if main:
                    print(f"stopped by {signal.Signals(stop).name} and saved at step {step}; go on with --resume", flush=True)
                self.accelerator.end_training()
                sys.exit(128 + stop)
        bar.close()
        model = self._whole_model()
        if main:
            self._finish(folder, model, figures, elapsed, tokens)
        self.accelerator.end_training()
        return figures

    def _agree(self, micro_batches: list[MicroBatch]) -> tuple[TokenCounts, int]:
        """The step's token counts over all processes, and whether any of them was asked to stop: one small exchange."""
        mine = self.step.count_tokens(micro_batches)
        shared = torch.tensor([mine.ce, mine.mlm, mine.cos, self.stop_signal], dtype=torch.int64)
        if self.world > 1:
            shared = self.accelerator.gather(shared.to(self.device)[None]).cpu()
            shared = torch.cat([shared[:, :3].sum(0), shared[:, 3:].amax(0)])
        ce, mlm, cos, stop = shared.tolist()
        return TokenCounts(ce, mlm, cos), stop

    def _positions(self, micro_batches: list[MicroBatch]) -> dict[str, dict]:
        """Where each lane of a stream stands after this step, gathered from all processes; nothing if the corpus is at hand."""
        mine = getattr(micro_batches, "positions", {})
        return {k: v for each in gather_object([mine]) for k, v in each.items()} if self.blocks.streaming else {}

    def _optimizer_step(self, micro_batches: list[MicroBatch], counts: TokenCounts) -> torch.Tensor:
        """Forward and backward through this process's micro-batches, and one update. Returns (loss, ce, mlm, cos, norm)."""
        parts = torch.zeros(4, device=self.device)
        for i, micro_batch in enumerate(micro_batches):
            last = i + 1 == len(micro_batches)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model), self.accelerator.autocast():
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

    def _close_window(self, step: int, window: list[torch.Tensor]) -> tuple[dict[str, float], torch.Tensor]:
        """The mean losses of the steps since the last line, and those of each step (steps, 5). Raises `UserError` if one is not finite."""
        values = torch.stack(window)
        values[:, :4] = self.accelerator.reduce(values[:, :4].contiguous(), "sum")  # each process holds a part of every mean
        bad = (~torch.isfinite(values)).any(1).nonzero()
        if len(bad):
            wrong = step - len(window) + int(bad[0])
            saved = sorted((Path(self.config.output) / "checkpoints").glob("step-*"))
            raise UserError(
                f"The loss or its gradient is not finite in step {wrong + 1} (sequences {wrong * self.config.batch_size} to "
                f"{(wrong + 1) * self.config.batch_size - 1} of the run).",
                f"The last good checkpoint is {saved[-1] if saved else 'none yet'}. Lower --learning_rate or lengthen --warmup, "
                "or try --precision fp32.",
            )
        loss, ce, mlm, cos, norm = values.mean(0).tolist()
        lr = self.schedules[0].get_last_lr()[0]
        return {"step": step, "loss": loss, "ce": ce, "mlm": mlm, "cos": cos, "norm": norm, "lr": lr}, values

    def evaluate(self) -> dict[str, float]:
        """Held-out figures over all processes."""
        # Where weights are sharded, each pass needs all processes: all compute all of it.
        rank, world = (0, 1) if self.sharded else (self.rank, self.world)
        batches = held_out_batches(self.blocks.held_out, self.tokenizer, self.config.eval_blocks, 64, rank, world)
        with self.accelerator.autocast():
            model = self.accelerator.unwrap_model(self.model)
            sums = masked_lm_sums(model, batches, self.teacher, self.device)
        if world > 1:
            sums = self.accelerator.reduce(sums.to(self.device), "sum").cpu()
        return to_figures(sums, self.teacher is not None)

    # -------------------------------------------------------------------------------------------------------------- messages
    def _say_hello(self, done: int) -> None:
        parameters = sum(p.numel() for p in self.accelerator.unwrap_model(self.model).parameters())
        kind = f"student of {self.config.teacher}" if self.teacher is not None else "BERT from nothing"
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
        if self.config.tracker:
            self.accelerator.log({k: v for k, v in row.items() if k != "step"}, step=step)

    def _whole_model(self) -> Student | MaskedLM:
        """The trained model; on the main process alone where it was sharded, because only there it has to fit."""
        bare = self.accelerator.unwrap_model(self.model)
        if not self.sharded:
            return bare
        state = whole_state(bare, self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            bare = self._new_model()
            bare.load_state_dict(state)
        return bare

    def _finish(self, folder: Path, model: Student | MaskedLM, figures: dict[str, float], seconds: float, tokens: int) -> None:
        """Write `curves.png` and `model/`."""
        plot_curves(folder)
        model = model.to(getattr(torch, self.config.save_dtype))
        shape = f"{model.config.num_hidden_layers} layers x {model.config.hidden_size}"
        record = {
            "shape": shape, "fingerprint": self.blocks.fingerprint, "tokens": tokens, "steps": self.steps, "minutes": seconds / 60,
            "tokens_per_second": tokens / max(seconds, 1e-9), "processes": self.world, "precision": self.config.precision,
        }  # fmt: skip
        with whole_folder(folder / "model") as beside:
            model.save_pretrained(beside)
            self.tokenizer.save_pretrained(beside)
            (beside / "README.md").write_text(model_card(self.config, self.arguments, record, figures, describe_machine()))
            (beside / "curves.png").write_bytes((folder / "curves.png").read_bytes())
        print(f"model in {folder / 'model'}: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()), flush=True)


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with exit_on_user_error():
        run = Run(parse_arguments(arguments), arguments)

        def ask_to_stop(number: int, frame: object) -> None:
            run.stop_signal = number  # acted on at the end of the step

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, ask_to_stop)
        try:
            run.train()
        finally:  # a message must not hang on the end of the progress bar
            if run.bar is not None:
                run.bar.close()


if __name__ == "__main__":
    main()

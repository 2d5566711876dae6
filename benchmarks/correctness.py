"""Are the quick forms right on this device? Each against the definition in fp64 on the CPU.

    python benchmarks/correctness.py --lines results.jsonl
    python benchmarks/correctness.py --words 100 --tokens 40      # in seconds, on a CPU

Checked are the losses over the vocabulary (defined, fused, compiled), a whole step of a small
student and teacher (losses, every gradient), layers that are compiled, and that replay CUDA graphs
over several micro-batches and steps, and Muon on stacks of matrices. In bf16 a form may err as much
as twice the definition in bf16 does: that is what bf16 costs. It ends with exit code 1 if a check
fails.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from arguments import parse
from step import Lines
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from distil_lib.common.processes import run_program
from distil_lib.distillation import DistillationStep
from distil_lib.fused_losses import Projection, fused_vocabulary_losses
from distil_lib.initialization import initialize_student
from distil_lib.losses import TripleLoss, TripleLossOutput, mlm_loss, soft_target_loss
from distil_lib.masking import MicroBatch
from distil_lib.teacher import MaskedLM
from distil_lib.training.compilation import compile_layers, keep_gradients
from distil_lib.training.compiled_losses import compiled_vocabulary_losses
from distil_lib.training.optimization import StackedMuon

FP32, BF16 = 1e-5, 2.0  # largest error; in bf16, times that of the definition
FORMS = ("defined", "fused", "compiled losses", "compiled layers", "layers in graphs")
REPLAYS = 4  # of which the first compile and record


def distance(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    """Of each tensor: the norm of the difference, relative to its own."""
    pairs = zip(found, exact, strict=True)
    return [float((a.double().cpu() - b).norm() / b.norm().clamp_min(1e-30)) for a, b in pairs]


def precision_of(name: str, device: str):
    return torch.autocast(device, torch.bfloat16) if name == "bf16" else nullcontext()


# ------------------------------------------------------------------------------------------- losses
def heads(tokens: int, words: int, width: int) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Student's and teacher's states, matrix and bias in fp64, and labels of the last tokens."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((tokens, width), (words, width), (words,))
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    student, teacher = ([draw(shape) * 0.3 for shape in shapes] for _ in range(2))
    # 0.3 x 0.3 x 768 ** 0.5: logits as spread out as a trained model's are.
    return student, teacher, torch.randint(words, (tokens // 3,), generator=generator)


def vocabulary_losses(
    losses: Callable | None, student: list[Tensor], teacher: list[Tensor], labels: Tensor
) -> list[Tensor]:
    """Losses and gradients; None: the definition. Two thirds of the tokens have soft targets."""
    student = [x.detach().clone().requires_grad_() for x in student]
    soft = 2 * len(student[0]) // 3
    weights = (5 / soft, 2 / len(labels))
    if losses is None:
        z = F.linear(*student)
        with torch.no_grad():
            t = F.linear(teacher[0][:soft], *teacher[1:])
        ce = soft_target_loss(z[:soft], t, reduction="sum")
        mlm = mlm_loss(z[len(z) - len(labels) :], labels, "sum")
        loss = weights[0] * ce + weights[1] * mlm
    else:
        answers = Projection(teacher[0][:soft], *teacher[1:])
        loss, ce, mlm = losses(*student, answers, labels, 2.0, *weights)
    loss.backward()
    return [loss.detach(), ce.detach(), mlm.detach(), *(x.grad for x in student)]


def check_losses(options: argparse.Namespace, tell: Callable) -> None:
    student, teacher, labels = heads(options.tokens, options.words, options.width)
    exact = vocabulary_losses(None, student, teacher, labels)
    forms = {"defined": None, "fused": fused_vocabulary_losses}
    forms["compiled losses"] = compiled_vocabulary_losses(
        partial(torch.compile, backend=options.backend)
    )
    device = options.device
    for precision in ("fp32", "bf16"):
        reference = None
        for name, form in forms.items():
            here = [[x.float().to(device) for x in part] for part in (student, teacher)]

            def compute(form=form, here=here, precision=precision) -> list[Tensor]:
                with precision_of(precision, device):
                    return vocabulary_losses(form, *here, labels.to(device))

            found = tell(f"losses, {name}, {precision}", compute, exact, reference)
            reference = reference or found


# ------------------------------------------------------------------------------------------- a step
def models(words: int) -> tuple[nn.Module, MaskedLM]:
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = BertConfig(vocab_size=words, intermediate_size=512, **shape)
    teacher = MaskedLM(BertForMaskedLM(config)).eval()
    with torch.no_grad():
        for p in teacher.parameters():  # soft targets far from uniform
            p.mul_(3.0) if p.ndim == 2 else p.add_(0.1 * torch.randn_like(p))
    return initialize_student(teacher, "spread", dropout=0.0).train(), teacher


def some_batch(words: int) -> MicroBatch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, words, (4, 32), generator=generator)
    masked = torch.rand(ids.shape, generator=generator) < 0.2
    labels = torch.where(masked, ids, -100)
    return MicroBatch(ids, labels, torch.ones_like(masked), torch.arange(4))


def whole_step(form: str, backend: str, student, teacher, batch: MicroBatch) -> list[Tensor]:
    """Losses and all gradients of a step."""
    fused: bool | Callable = form != "defined"
    if form == "compiled losses":
        fused = compiled_vocabulary_losses(partial(torch.compile, backend=backend))
    graphs = form == "layers in graphs"
    if graphs or form == "compiled layers":
        compile_layers(student, teacher, backend=backend, graphs=graphs)
    step = DistillationStep(student, teacher, TripleLoss(), "all", fused)
    out = replayed(step, batch) if graphs else step(batch)
    if not graphs:
        out.loss.backward()
    gradients = torch.cat([p.grad.double().flatten().cpu() for p in student.parameters()])
    return [out.loss.detach(), out.ce, out.mlm, out.cos, gradients]


def replayed(step: DistillationStep, batch: MicroBatch) -> TripleLossOutput:
    """As the loop steps with CUDA graphs, in two micro-batches; what the last step computes."""
    counts, parts = step.count_tokens([batch]), (slice(0, 2), slice(2, 4))
    for _ in range(REPLAYS):
        step.student.zero_grad(set_to_none=False)
        keep_gradients(step.student)
        total = [torch.zeros(())] * 4
        for rows in parts:
            torch.compiler.cudagraph_mark_step_begin()
            fields = (batch.input_ids, batch.labels, batch.loss_mask, batch.examples)
            out = step(MicroBatch(*(field[rows] for field in fields)), counts)
            out.loss.backward()
            found = (out.loss.detach(), out.ce, out.mlm, out.cos)
            total = [a.to(b) + b for a, b in zip(total, found, strict=True)]
    return TripleLossOutput(*total)


def check_steps(options: argparse.Namespace, tell: Callable) -> None:
    words = min(options.words, 2000)
    batch, made = some_batch(words), models(words)
    exact = whole_step("defined", "", *(copy.deepcopy(m).double() for m in made), batch)
    for precision in ("fp32", "bf16"):
        reference = None
        for form in FORMS:
            here = [copy.deepcopy(m).to(options.device) for m in made]

            def compute(form=form, here=here, precision=precision) -> list[Tensor]:
                with precision_of(precision, options.device):
                    return whole_step(form, options.backend, *here, batch)

            found = tell(f"step, {form}, {precision}", compute, exact, reference)
            reference = reference or found


# -------------------------------------------------------------------------------------------- muon
def updated(kind: type, device: str, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(64, 64)] * 3 + [(256, 64)] * 2
    matrices = [torch.randn(s, generator=generator) for s in shapes]
    parameters = [nn.Parameter(m.to(device, dtype)) for m in matrices]
    settings = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    optimizer = kind(parameters, **settings)
    for _ in range(3):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator).to(p)
        optimizer.step()
    return [p.detach() for p in parameters]


def check_muon(options: argparse.Namespace, tell: Callable) -> None:
    """PyTorch's Muon on the CPU is the oracle; both orthogonalize in bf16."""
    exact = [p.double() for p in updated(torch.optim.Muon, "cpu", torch.float32)]
    kinds = {"one by one": torch.optim.Muon, "stacks": StackedMuon}
    for name, kind in kinds.items():
        compute = partial(updated, kind, options.device, torch.float32)
        tell(f"Muon, {name}", compute, exact, None, 5e-3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=3000)
    parser.add_argument("--words", type=int, default=30_522)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--lines", type=Path, default=None, help="append each result to this file")
    options = parse(parser)
    lines, failed = Lines(options.lines, part="correctness"), []

    def tell(name, compute, exact, reference, limit=FP32) -> list[float] | None:
        """Compute, compare, write. reference: errors of the definition in the same precision."""
        start = time.perf_counter()
        try:
            errors = distance(compute(), exact)
        except Exception as error:  # whatever a compiler or a device raises: the others go on
            failed.append(name)
            lines.write(check=name, ok=False, error=f"{type(error).__name__}: {error}"[:500])
            print(f"FAILED  {name}: {error}", flush=True)
            return None
        if name.endswith("bf16"):
            limits = [BF16 * max(r, 1e-3) for r in reference] if reference else [0.1] * len(errors)
        else:
            limits = [limit] * len(errors)
        ok = all(e <= most for e, most in zip(errors, limits, strict=True))
        seconds = time.perf_counter() - start
        lines.write(check=name, ok=ok, error=max(errors), errors=errors, seconds=seconds)
        print(f"{'right ' if ok else 'WRONG '}  {name}: {max(errors):.1e}", flush=True)
        failed.extend([] if ok else [name])
        return errors

    for check in (check_losses, check_steps, check_muon):
        check(options, tell)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run_program(main)

"""`--compile`: what is compiled computes the same numbers, and nothing else knows of it.

Oracles: the definition of the losses in float64, and the same models uncompiled. The
losses' numbers are checked before a compiler sees them; what it is given, by the compiler's front
alone ("eager": traced, then run as traced), because its back needs half a minute for each function
on a slow machine; one test, marked slow, takes all of it.
"""

import copy
import itertools
import json
import shutil
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from functorch.compile import make_boxed_func
from helpers import apart, newest_weights, randomize
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig

from distil_lib import pretrain
from distil_lib.ablation.fingerprints import InputFingerprints
from distil_lib.distillation import DistillationStep
from distil_lib.errors import UserError
from distil_lib.fused_losses import Projection, sort_tokens
from distil_lib.losses import TripleLoss, mlm_loss, soft_target_loss
from distil_lib.masking import MicroBatch
from distil_lib.student import Student
from distil_lib.teacher import MaskedLM
from distil_lib.training import compilation, compiled_losses
from distil_lib.training.compilation import compile_layers, compiles
from distil_lib.training.compiled_losses import compiled_vocabulary_losses
from distil_lib.training.config import PretrainConfig
from distil_lib.training.loop import PretrainingRun

# The tracer looks at `.grad` of what has none, which warns; PyTorch silences it outside of pytest.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
KEYS_BIAS = "k_lin.bias"  # its gradient is 0 but for rounding, which Adam makes a step of
KINDS = ("ce only", "mlm only", "both", "neither")
ORDERS = [*KINDS, "ce only, mlm only", "neither, both, ce only", "mlm only, both, neither, ce only"]


traced = partial(torch.compile, backend="eager")
plainly = compiled_vocabulary_losses(lambda function: function)


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


# ------------------------------------------------------------------------------------------- losses
def case(kinds: str, tokens: int = 9, words: int = 70, dtype=torch.float64) -> tuple:
    """Student's and teacher's states, matrix and bias; labels; the mask of the soft targets.

    70 words: rows of logits are filled up to 128.
    """
    generator = torch.Generator().manual_seed(1)
    shapes = ((tokens, 5), (words, 5), (words,))
    student, teacher = (
        [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]
        for _ in range(2)
    )
    each = itertools.islice(itertools.cycle(kinds.split(", ")), tokens)
    kind = torch.tensor([KINDS.index(k) for k in each])
    labels = torch.where((kind == 1) | (kind == 2), torch.arange(tokens) % words, -100)
    return student, teacher, labels, (kind == 0) | (kind == 2)


def definition(student, teacher, labels, mask) -> tuple:
    z, t = F.linear(*student), F.linear(*teacher)
    ce, mlm = soft_target_loss(z, t, mask, 2.0, "sum"), mlm_loss(z, labels, "sum")
    return 0.7 * ce + 0.3 * mlm, ce, mlm


def compiled(losses, chunk=None, given=False):
    """The same by compiled losses. given: the teacher's logits are there and not its projection."""

    def function(student, teacher, labels, mask) -> tuple:
        places, soft, labelled = sort_tokens(mask, labels != -100)
        answers = Projection(teacher[0][places[:soft]], *teacher[1:])
        if given:
            answers = F.linear(teacher[0][places[:soft]], *teacher[1:])
        rest = (answers, labels[places[len(places) - labelled :]], 2.0, 0.7, 0.3, chunk)
        return losses(student[0][places], *student[1:], *rest)

    return function


def results(function, student, *rest) -> list[torch.Tensor]:
    """Losses, and gradients of states, matrix and bias."""
    student = [x.detach().clone().requires_grad_() for x in student]
    loss, *parts = function(student, *rest)
    (3 * loss).backward()  # 3: the gradient that arrives is not always 1
    return [loss.detach(), *(p.detach() for p in parts), *(x.grad / 3 for x in student)]


def error(found, exact) -> float:
    """The largest, relative to each tensor's largest entry and to 1 where that is less."""
    assert [x.shape for x in found] == [x.shape for x in exact]
    pairs = [(a.double(), b.double()) for a, b in zip(found, exact, strict=True)]
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1)) for a, b in pairs)


def check(function, given: tuple) -> None:
    assert error(results(function, *given), results(definition, *given)) < 1e-10


@pytest.mark.parametrize("kinds", ORDERS)
@pytest.mark.parametrize("chunk", [1, 4, None])
def test_losses_and_gradients_are_those_of_the_definition(kinds, chunk):
    check(compiled(plainly, chunk), case(kinds))
    exact, single = results(definition, *case(kinds)), case(kinds, dtype=torch.float32)
    assert error(results(compiled(plainly, chunk), *single), exact) < 1e-5


@pytest.mark.usefixtures("fresh_compiler")
def test_what_is_traced_computes_the_same_in_chunks_of_all_kinds_and_sizes():
    losses = compiled_vocabulary_losses(traced)
    for chunk in (4, None):
        check(compiled(losses, chunk), case("mlm only, both, ce only, ce only", tokens=21))
    assert counters["stats"]["unique_graphs"]  # something was traced at all


def test_logits_that_somebody_has_computed_are_targets_too():
    given = case("mlm only, both, ce only")
    check(compiled(plainly, 4, given=True), given)


def test_bfloat16_is_as_near_to_the_truth_as_the_definition_in_bfloat16():
    kinds = "both, ce only, mlm only"
    exact, single = results(definition, *case(kinds)), case(kinds, dtype=torch.float32)

    def distances(function):
        with torch.autocast("cpu", torch.bfloat16):
            found = results(function, *single)
        assert all(x.dtype == torch.float32 for x in found)
        return [float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]

    mine, theirs = distances(compiled(plainly, 4)), distances(definition)
    assert all(0 < a < 2 * max(b, 1e-2) for a, b in zip(mine, theirs, strict=True))


def test_without_gradients_there_is_the_loss_alone():
    student, *rest = case("both, ce only")
    with torch.no_grad():
        loss, *_ = compiled(plainly)(student, *rest)
    again, *parts = compiled(plainly)([x.requires_grad_() for x in student], *rest)
    assert loss == again.detach() and again.requires_grad
    assert not loss.requires_grad and not any(p.requires_grad for p in parts)


def _words_that_do_not_exist_count(monkeypatch):
    monkeypatch.setattr(compiled_losses, "NOWHERE", 0.0)


def _temperature_not_squared(monkeypatch, soft=compiled_losses._soft):
    monkeypatch.setattr(compiled_losses, "_soft", lambda *a: [x / a[-1] for x in soft(*a)])


def _label_left_out(monkeypatch, hard=compiled_losses._hard):
    monkeypatch.setattr(
        compiled_losses, "_hard", lambda z, b, labels: (hard(z, b, labels)[0], (z + b).softmax(-1))
    )


def _masks_swapped(monkeypatch, chunks=compiled_losses._chunks):
    monkeypatch.setattr(compiled_losses, "_chunks", lambda n, c, m, size: chunks(n, m, c, size))


def _only_the_first_chunk(monkeypatch, chunks=compiled_losses._chunks):
    monkeypatch.setattr(compiled_losses, "_chunks", lambda *a: itertools.islice(chunks(*a), 1))


@pytest.mark.parametrize(
    "bug",
    [
        _words_that_do_not_exist_count,
        _temperature_not_squared,
        _label_left_out,
        _masks_swapped,
        _only_the_first_chunk,
    ],
)
def test_a_bug_is_caught(bug, monkeypatch):
    given = case("mlm only, both, ce only, ce only")
    bug(monkeypatch)
    with pytest.raises((AssertionError, IndexError, RuntimeError, TypeError)):
        check(compiled(plainly, 4), given)


# ------------------------------------------------------------------------------------------- layers
def models(layers: int = 2) -> tuple[Student, MaskedLM]:
    sizes = {"vocab_size": 40, "dim": 16, "hidden_dim": 32, "n_heads": 2}
    no_dropout = {"dropout": 0.0, "attention_dropout": 0.0}
    student = Student(DistilBertConfig(**sizes, n_layers=layers, **no_dropout))
    shape = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=40, num_hidden_layers=2 * layers, **shape)
    return randomize(student), randomize(MaskedLM(BertForMaskedLM(config)))


def batch(rows: int = 3) -> MicroBatch:
    ids = torch.randint(5, 40, (rows, 10), generator=torch.Generator().manual_seed(0))
    return MicroBatch(ids, torch.where(ids % 3 == 0, ids, -100), ids >= 0, torch.arange(rows))


def step_results(student, teacher, fused=True) -> list[torch.Tensor]:
    """The losses of a step, and all gradients in one row: some of them are 0 but for rounding."""
    out = DistillationStep(student, teacher, TripleLoss(), fused=fused)(batch())
    out.loss.backward()
    gradients = torch.cat([p.grad.flatten() for p in student.parameters()])
    return [out.loss.detach(), out.ce, out.mlm, out.cos, gradients]


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_layers_compute_the_same_under_the_same_names():
    plain = models()
    twins = [copy.deepcopy(model) for model in plain]
    assert compile_layers(*twins, None, backend="eager") == 2 + 4
    for model, twin in zip(plain, twins, strict=True):
        assert list(model.state_dict()) == list(twin.state_dict())
    assert error(step_results(*twins), step_results(*plain)) < 1e-5
    assert counters["stats"]["unique_graphs"]  # they were compiled at all
    copy.deepcopy(twins[0]).load_state_dict(plain[0].state_dict())
    twins[0].to_transformers()


@pytest.mark.usefixtures("fresh_compiler")
def test_depth_costs_no_compiling():
    """Oracle: the number of compiled forms of models that are three times as deep."""

    def forms(layers: int) -> int:
        torch._dynamo.reset()
        counters.clear()
        made = models(layers)
        compile_layers(*made, backend="eager")
        step_results(*made)
        return counters["stats"]["unique_graphs"]

    assert 0 < forms(1) == forms(3)


# --------------------------------------------------------------------------------------- the choice
def test_only_a_gpu_is_compiled_for_unless_it_is_asked_for(monkeypatch):
    tried = []
    monkeypatch.setattr(compilation, "why_not", lambda device: tried.append(device.type) or "")
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert not compiles("off", gpu) and not compiles("auto", cpu)
    assert not compiles("auto", gpu, sharded=True) and tried == []
    with torch._dynamo.config.patch(suppress_errors=False):
        assert compiles("on", cpu) and tried == ["cpu"]
        assert not torch._dynamo.config.suppress_errors  # who asks for it is told what is wrong
        assert compiles("auto", gpu) and tried == ["cpu", "cuda"]
        assert torch._dynamo.config.suppress_errors
    with pytest.raises(UserError, match="FSDP") as refused:
        compiles("on", gpu, sharded=True)
    assert refused.value.settings == ("compile",)


def test_where_no_compiler_is_auto_goes_without_and_on_is_refused(monkeypatch):
    """Oracle: a compiler that is not there, as PyTorch itself reports it."""
    import torch._inductor.config as inductor

    with inductor.patch({"cpp.cxx": (None, "/nowhere/g++")}):
        with pytest.raises(UserError, match=r"torch\.compile does not work on this machine") as bad:
            compiles("on", torch.device("cpu"))
        assert "\n" not in bad.value.problem and "C++ compiler" in bad.value.remedy
        reason = compilation.why_not(torch.device("cpu"))
    monkeypatch.setattr(compilation, "why_not", lambda device: reason)
    assert reason and not compiles("auto", torch.device("cuda"))


def test_records_of_earlier_runs_are_still_found():
    """Whether a run is compiled is no part of what decides its numbers."""
    config = PretrainConfig(corpus="hub:a/b", tokenizer="a/b", compile="on")
    settings = InputFingerprints().result_determining_settings(config, {}, [0])
    assert "compile" not in settings["pretraining"] and "fused" in settings["pretraining"]


# ------------------------------------------------------------------------------------------ the run
@pytest.fixture
def quick_compiler(monkeypatch):
    """The front of the compiler alone, in a run of this process."""
    layers = lambda *models, **how: compile_layers(*models, backend="eager", **how)
    losses = lambda: compiled_vocabulary_losses(traced)
    monkeypatch.setattr("distil_lib.training.setup.compile_layers", layers)
    monkeypatch.setattr("distil_lib.training.setup.compiled_vocabulary_losses", losses)
    monkeypatch.setattr(compilation, "why_not", lambda device: "")


def forget():
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)


@pytest.mark.usefixtures("fresh_accelerator", "quick_compiler", "fresh_compiler")
def test_a_compiled_run_is_the_same_run_and_goes_on_without_a_compiler(small_run, tmp_path, capsys):
    """Oracle: the run that is not compiled. Both save checkpoints, and either resumes the other."""
    runs = {choice: tmp_path / choice for choice in ("off", "on")}
    for choice, folder in runs.items():
        pretrain.main(small_run(folder, compile=choice))
        forget()
    said = capsys.readouterr().out
    assert said.count(", compiled, fp32") == 1
    expected, found = (newest_weights(folder) for folder in runs.values())
    assert list(found) == list(expected)
    assert apart(found, expected, but_for=KEYS_BIAS) < 1e-4
    shutil.rmtree(runs["on"] / "checkpoints" / "step-00000012")
    pretrain.main([*small_run(runs["on"], compile="off"), "--resume"])
    assert "with other compiled (True, now None)" in capsys.readouterr().out
    assert apart(newest_weights(runs["on"]), expected, but_for=KEYS_BIAS) < 1e-4
    rows = [json.loads(line) for line in (runs["on"] / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "kl" in row] == [6, 12]  # evaluated uncompiled


class Replays:
    """What CUDA graphs do to memory: a mark overwrites all that compiled layers have returned."""

    def __init__(self):
        self.returned, self.marks = [], 0
        self.backend = aot_autograd(fw_compiler=self.compiler, bw_compiler=self.compiler)

    def compiler(self, graph, inputs):
        def run(given):
            tensors = [x for x in given if isinstance(x, torch.Tensor)]
            own = {x.untyped_storage().data_ptr() for x in tensors}  # weights, say
            outputs = graph(*given)
            # Weakly, or autograd would see that somebody else needs them.
            self.returned += [
                StorageWeakRef(x.untyped_storage())
                for x in outputs
                if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in own
            ]
            return outputs

        return make_boxed_func(lambda *given: run(given))

    def mark(self):
        self.marks += 1
        for ref in self.returned:
            memory = torch.UntypedStorage._new_with_weak_ptr(ref.cdata)
            if memory is not None:
                memory.fill_(255)  # four such bytes are NaN
        self.returned.clear()


@pytest.mark.usefixtures("fresh_accelerator", "quick_compiler", "fresh_compiler")
def test_a_run_whose_graphs_overwrite_their_results_is_the_same_run(
    small_run, tmp_path, monkeypatch, capsys
):
    """Oracle: the run without a compiler; and gradients that are left in the graphs' memory."""
    replays = Replays()
    layers = lambda *models, **how: compile_layers(*models, backend=replays.backend, **how)
    monkeypatch.setattr("distil_lib.training.setup.compile_layers", layers)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", replays.mark)
    short = {"max_steps": 2, "micro_batch_size": 4, "eval_every": 9, "save_every": 9}
    for choice in ("off", "graphs"):
        pretrain.main(small_run(tmp_path / choice, compile=choice, **short))
        forget()
    assert replays.marks == 2 * 2
    expected, found = (newest_weights(tmp_path / choice) for choice in ("off", "graphs"))
    assert apart(found, expected, but_for=KEYS_BIAS) < 1e-4
    monkeypatch.setattr("distil_lib.training.setup.keep_gradients", lambda model: None)
    with pytest.raises(SystemExit):
        pretrain.main(small_run(tmp_path / "lost", compile="graphs", **short))
    assert "not finite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "setting"), [("graphs", "on, which records no graphs, or off"), ("on", "with off")]
)
@pytest.mark.usefixtures("fresh_accelerator", "quick_compiler", "fresh_compiler")
def test_a_step_that_fails_in_compiled_layers_says_how_to_go_on(
    asked, setting, small_run, tmp_path, monkeypatch, capsys
):
    """As CUDA words it where a replay fails. Oracle: a run without a compiler."""
    step, calls = PretrainingRun._optimizer_step, []

    def fails(run, *arguments):
        calls.append(1)
        if len(calls) == 6:
            raise RuntimeError("CUDA error: operation failed due to a previous error\nmore lines")
        return step(run, *arguments)

    monkeypatch.setattr(PretrainingRun, "_optimizer_step", fails)
    with pytest.raises(SystemExit) as end:
        pretrain.main(small_run(tmp_path / "run", compile=asked))
    said = capsys.readouterr().err
    assert end.value.code == 2 and "Step 6 failed in compiled layers" in said
    assert "previous error." in said and "more lines" not in said
    assert setting in said and "(--resume, --compile)" in said
    for folder, resume in ((tmp_path / "run", ["--resume"]), (tmp_path / "off", [])):
        forget()
        pretrain.main([*small_run(folder, compile="off"), *resume])
    expected, found = (newest_weights(tmp_path / name) for name in ("off", "run"))
    assert apart(found, expected, but_for=KEYS_BIAS) < 1e-4


def test_other_failures_of_a_step_keep_their_names():
    """No memory, a lost process, and whatever happens where nobody asked for a compiler."""
    for setting, error in (
        ("graphs", torch.OutOfMemoryError("CUDA out of memory.")),
        ("on", RuntimeError("[gloo/pair.cc:1] Connection closed by peer")),
        ("auto", RuntimeError("CUDA error: device-side assert triggered")),
        ("off", AssertionError("a bug")),
        ("graphs", UserError("too long")),
    ):
        with pytest.raises(type(error)) as raised, compilation.compiled_step(setting, 1):
            raise error
        assert raised.value is error


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.usefixtures("fresh_compiler")
def test_the_whole_compiler_computes_the_same():
    """Layers and losses as a GPU's users get them, here by the CPU's back end."""
    plain = models(layers=1)
    twins = [copy.deepcopy(model) for model in plain]
    compile_layers(*twins)
    found = step_results(*twins, compiled_vocabulary_losses())
    assert error(found, step_results(*plain)) < 1e-5

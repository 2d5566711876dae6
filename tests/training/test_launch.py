"""The launch configurations: what each of them promises, really run where a CPU can, read with
Accelerate's own loader where not.

Oracles: the training of one process, and for files Accelerate's launcher up to the point where it
would start processes.
"""

import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from helpers import (
    apart,
    assert_user_error,
    double_precision,
    free_port,
    newest_weights,
    replace,
    signal_at,
    together,
    weights,
)
from setuptools.config.pyprojecttoml import load_file
from test_processes import KEYS_BIAS, alone, same_metrics, uneven  # noqa: F401 (fixtures)

from distil_lib.errors import UserError
from distil_lib.training.sharding import check_launch_backend, fsdp_plugin

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "distil_lib" / "training" / "accelerate_configs"
FILES = sorted(path.name for path in LAUNCH.glob("*.yaml"))
SCRIPT = ROOT / "distil_lib" / "pretrain.py"


# ------------------------------------------------------------------------------------ read, not run
def launched(path: Path, *options: str) -> tuple[dict[str, str], dict]:
    """(environment of the processes, what torchrun is told), by Accelerate's own steps.

    A setting it does not know raises.
    """
    parser = launch_command_parser()
    arguments = parser.parse_args(
        ["--config_file", str(path), *options, str(SCRIPT), "--preset", "demo"]
    )
    for section, settings in yaml.safe_load(
        path.read_text()
    ).items():  # Accelerate takes any key of a section, and any word as backend
        for key in settings if isinstance(settings, dict) else ():
            if not hasattr(arguments, key):
                raise ValueError(f"unknown key {key} in {section}")
    arguments, _, _ = _validate_launch_command(arguments)
    assert (
        (arguments.multi_gpu or arguments.use_fsdp) and not arguments.cpu and not arguments.use_cpu
    ), "processes of its own"
    with mock.patch(
        "accelerate.utils.launch.is_port_in_use", lambda port: False
    ):  # nothing is started on it
        return prepare_multi_gpu_env(arguments), vars(arguments)


@pytest.mark.parametrize("name, processes", [("cpu", 2), ("ddp", 8), ("fsdp", 8), ("zero2", 8)])
def test_one_machine(name, processes):
    environment, told = launched(LAUNCH / f"{name}.yaml")
    assert int(told["nproc_per_node"]) == processes and told["num_machines"] == 1
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"  # the program chooses
    assert ("ACCELERATE_USE_FSDP" in environment) == (name in ("fsdp", "zero2"))
    assert "ACCELERATE_USE_DEEPSPEED" not in environment


@pytest.mark.parametrize("name, reshard", [("fsdp", "true"), ("zero2", "false")])
def test_what_is_sharded(name, reshard):
    environment, _ = launched(LAUNCH / f"{name}.yaml")
    assert (
        environment["FSDP_VERSION"] == "2"
        and environment["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    )
    assert (
        environment["FSDP_RESHARD_AFTER_FORWARD"] == reshard
        and environment["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    )


@pytest.mark.parametrize("machine", [0, 1])
def test_two_machines_find_the_first(machine):
    _, told = launched(LAUNCH / "nodes.yaml", "--machine_rank", str(machine))
    assert (told["nnodes"], told["nproc_per_node"], told["node_rank"]) == ("2", "8", machine)
    assert (told["rdzv_backend"], told["rdzv_endpoint"]) == ("static", "10.0.0.1:29500")


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_it_is_for_how_it_is_called_and_what_to_change(name):
    comment = (LAUNCH / name).read_text().partition("\ncompute_environment")[0]
    assert all(line.startswith("#") for line in comment.splitlines()) and "Change " in comment
    command = "python -m distil_lib.launch" if name == "nodes.yaml" else "accelerate launch"
    file = f"distil_lib/training/accelerate_configs/{name}"
    assert f"#   {command} --config_file {file} " in comment


@pytest.mark.parametrize(
    "old, new",
    [
        ("num_machines", "num_machine"),
        ("FSDP\n", "FSPD\n"),
        ("fsdp_reshard_after_forward", "fsdp_reshard_after_foward"),
        ("distributed_type: FSDP", "distributed_type: 'NO'"),
        ("num_processes: 8", "num_processes: -1"),
    ],
)
def test_a_slip_in_a_file_is_caught(old, new, tmp_path):
    text = (LAUNCH / "fsdp.yaml").read_text()
    assert old in text
    (tmp_path / "slip.yaml").write_text(text.replace(old, new))
    with pytest.raises((ValueError, AssertionError)):
        launched(tmp_path / "slip.yaml")


def test_the_files_travel_with_the_package():
    """`tests/book` builds the wheel; here its patterns are held to the files."""
    settings = load_file(ROOT / "pyproject.toml")["tool"]["setuptools"]
    package = ROOT / "distil_lib"
    travelling = {p for each in settings["package-data"]["distil_lib"] for p in package.glob(each)}
    assert {LAUNCH / name for name in FILES} < travelling and len(FILES) == 5
    assert package / "training" / "model_card.md" in travelling


# ---------------------------------------------------------------------------------- two, on the CPU
def test_cpu_yaml_starts_two_that_train_the_parameters_of_one(alone, small_run, uneven, tmp_path):
    """The real launcher, file, program and precision."""
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(LAUNCH / "cpu.yaml"),
    ]
    command = [
        *launch,
        "--main_process_port",
        str(free_port()),
        str(SCRIPT),
        *small_run(tmp_path / "run", **uneven),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "2 process(es) on cpu, fp32" in done.stdout and done.stdout.count("model in") == 1
    mine = {k: w.double() for k, w in newest_weights(tmp_path / "run").items()}
    assert apart(mine, newest_weights(alone), but_for=KEYS_BIAS) < 1e-4
    same_metrics(tmp_path / "run", alone, 1e-3)


class count_exchanges:
    """Count the buckets of gradients that DDP exchanges; `always`: without `no_sync`, the bug put
    in on purpose.
    """

    def __init__(self, always: bool = False):
        self.always = always

    def __call__(self):
        import contextlib

        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

        from distil_lib.training.loop import PretrainingRun

        train, exchanges = PretrainingRun.train, 0

        def hook(group, bucket):
            nonlocal exchanges
            exchanges += 1
            return allreduce_hook(group, bucket)

        def counted(run):
            if self.always:
                run.accelerator.no_sync = lambda model: contextlib.nullcontext()
            run.model.register_comm_hook(None, hook)
            train(run)
            print(f"{exchanges} exchanges", flush=True)

        PretrainingRun.train = counted


@pytest.mark.parametrize("always, exchanges", [(False, 12), (True, 36)])
def test_gradients_are_exchanged_once_a_step(always, exchanges, small_run, program, tmp_path):
    """12 steps of 3 micro-batches on each process, of a model that is smaller than one bucket."""
    for done in together(
        program,
        small_run(tmp_path / "run", batch_size=12, micro_batch_size=2),
        count_exchanges(always),
    ):
        assert done.code == 0, done.err
        assert f"\n{exchanges} exchanges" in "\n" + done.out


class watch_the_teacher:
    """Say what the teacher and the student are before and after training."""

    def __call__(self):
        from torch.nn.parallel import DistributedDataParallel

        from distil_lib.teacher import MaskedLM
        from distil_lib.training.loop import PretrainingRun

        train = PretrainingRun.train

        def kinds(model):
            return sorted({str(p.dtype) for p in model.parameters()})

        def bits(model):
            return torch.cat([p.detach().flatten().view(torch.uint8) for p in model.parameters()])

        def watched(run):
            before, teacher = bits(run.teacher), {id(p) for p in run.teacher.parameters()}
            train(run)
            trained = {
                id(p) for o in run.setup.optimizers for g in o.param_groups for p in g["params"]
            }
            said = {
                "teacher": kinds(run.teacher),
                "student": kinds(run.model),
                "unchanged": torch.equal(before, bits(run.teacher)),
                "wrapped": [
                    isinstance(m, DistributedDataParallel) for m in (run.teacher, run.model)
                ],
                "bare": type(run.teacher) is MaskedLM
                and run.setup.step.teacher is run.teacher
                and not run.teacher.training,
                "gradients": any(
                    p.requires_grad or p.grad is not None for p in run.teacher.parameters()
                ),
                "trained": bool(teacher & trained),
            }
            print("said", json.dumps(said), flush=True)

        PretrainingRun.train = watched


def test_the_teacher_is_not_wrapped_not_trained_not_saved_and_may_sit_in_bf16(
    small_run, program, tmp_path
):
    for done in together(
        program, small_run(tmp_path / "run", teacher_dtype="bfloat16"), watch_the_teacher()
    ):
        assert done.code == 0, done.err
        assert json.loads(done.out.partition("said ")[2].splitlines()[0]) == {
            "teacher": ["torch.bfloat16"],
            "student": ["torch.float32"],
            "unchanged": True,
            "wrapped": [False, True],
            "bare": True,
            "gradients": False,
            "trained": False,
        }
    saved, model = newest_weights(tmp_path / "run"), weights(tmp_path / "run")
    assert saved.keys() - model.keys() <= {
        "vocab_projector.weight",
        "distilbert.embeddings.word_embeddings.weight",
    }
    assert {w.dtype for w in saved.values()} == {torch.float32} and not any(
        name.startswith(("model.", "bert.")) for name in saved
    )


# ------------------------------------------------------------------------------------------ sharded
class sharded_on_cpu:
    """Launch with the settings of a file, and open the door that Accelerate keeps shut: it shards
    on accelerators only, and on a CPU passes over FSDP. Everything behind that door, `fully_shard`
    on a mesh of gloo processes, is the real thing.

    With `exact`, products that Muon makes in bf16 are exact, so that it can be told from a wrong
    Muon.
    """

    def __init__(self, name: str, exact: bool = False, opened: bool = True):
        environment, _ = launched(LAUNCH / f"{name}.yaml")
        self.environment = {
            k: v for k, v in environment.items() if k.startswith(("ACCELERATE_USE_FSDP", "FSDP_"))
        }
        self.exact, self.opened = exact, opened

    def __call__(self):
        from accelerate.state import AcceleratorState, PartialState
        from accelerate.utils import DistributedType

        os.environ.update(self.environment)
        double_precision()()
        if self.exact:
            exact_muon()()
        create = AcceleratorState.__init__

        def opened(state, *args, fsdp_plugin=None, **kwargs):
            create(state, *args, fsdp_plugin=fsdp_plugin, **kwargs)
            if fsdp_plugin is not None and self.opened:
                state.distributed_type = PartialState._shared_state["distributed_type"] = (
                    DistributedType.FSDP
                )
                state.fsdp_plugin = fsdp_plugin

        AcceleratorState.__init__ = opened


class exact_muon:
    """Float64 where Muon would compute in bf16."""

    def __call__(self):
        double_precision()()
        replace("torch.Tensor.bfloat16", lambda tensor: tensor)


class its_part:
    """Say which share of its weights each process holds."""

    def __init__(self, then):
        self.then = then

    def __call__(self):
        import distil_lib.training.loop as loop

        self.then()
        describe = loop.describe_run

        def watched(setup, done):
            parameters = list(setup.model.parameters())
            own = sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in parameters)
            print(f"share {own / sum(p.numel() for p in parameters):.2f}", flush=True)
            return describe(setup, done)

        loop.describe_run = watched


@pytest.mark.parametrize("name", ["fsdp", "zero2"])
def test_sharded_processes_train_the_parameters_of_one(
    name, alone, small_run, program, uneven, tmp_path
):
    finished = together(
        program, small_run(tmp_path / "run", **uneven), its_part(sharded_on_cpu(name))
    )
    assert [done.code for done in finished] == [0, 0], finished[0].err
    assert "2 process(es) on cpu, sharded, fp32" in finished[0].out
    assert all(0.4 < float(done.out.partition("share ")[2].split()[0]) < 0.6 for done in finished)
    assert apart(newest_weights(tmp_path / "run"), newest_weights(alone)) < 1e-9
    assert apart(weights(tmp_path / "run"), weights(alone)) < 1e-9  # `model/` holds whole tensors
    same_metrics(
        tmp_path / "run", alone, 1e-5
    )  # the norm that gradients are cut to and the held-out figures among them


@pytest.fixture(scope="module")
def muon(small_run, program, tmp_path_factory):
    """Arguments for a run with Muon and clipped gradients, and what one process trains by them."""
    folder = tmp_path_factory.mktemp("muon") / "run"
    settings = {"optimizer": "muon", "max_grad_norm": 0.5, "micro_batch_size": 2, "save_every": 5}
    done = program(small_run(folder, **settings), exact_muon())
    assert done.code == 0, done.err
    return settings, folder


class stopped:
    """Asked to stop in step 8."""

    def __init__(self, then):
        self.then = then

    def __call__(self):
        self.then()
        signal_at("distil_lib.training.loop.PretrainingRun._optimizer_step", 8, signal.SIGTERM)()


@pytest.mark.parametrize("before, after", [("fsdp", "fsdp"), ("fsdp", None), (None, "fsdp")])
def test_a_sharded_run_with_muon_is_resumed_sharded_or_not(
    before, after, muon, small_run, program, tmp_path
):
    """Stopped in step 8, resumed by the same or another number of processes: what one process
    trains, never stopped.
    """
    settings, reference = muon

    def start(name, prepare, *more):
        arguments = [*small_run(tmp_path / "run", **settings), *more]
        return together(program, arguments, prepare) if name else [program(arguments, prepare)]

    prepares = {"fsdp": sharded_on_cpu("fsdp", exact=True), None: exact_muon()}
    assert {done.code for done in start(before, stopped(prepares[before]))} == {
        128 + signal.SIGTERM
    }
    for done in start(after, prepares[after], "--resume"):
        assert done.code == 0, done.err
    assert apart(newest_weights(tmp_path / "run"), newest_weights(reference)) < 1e-9


def test_on_a_cpu_accelerate_passes_over_fsdp(small_run, program, tmp_path):
    """As fsdp.yaml says.

    When this fails, Accelerate has opened the door, and `sharded_on_cpu` may go.
    """
    for done in together(
        program,
        small_run(tmp_path / "run", max_steps=1),
        its_part(sharded_on_cpu("fsdp", opened=False)),
    ):
        assert done.code == 0, done.err
        assert "share 1.00" in done.out and "sharded" not in done.out


# ------------------------------------------------------------------------------------------ refused
@pytest.mark.parametrize(
    "environment, words",
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, ["DeepSpeed", "zero2.yaml"]),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, ["Megatron"]),
        (
            {
                "ACCELERATE_USE_FSDP": "true",
                "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
                "FSDP_VERSION": "2",
            },
            ["parallelism"],
        ),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, ["fsdp_version: 2"]),
        (
            {
                "ACCELERATE_USE_FSDP": "true",
                "FSDP_VERSION": "2",
                "FSDP_CPU_RAM_EFFICIENT_LOADING": "True",
            },
            ["teacher would be empty"],
        ),
    ],
)
def test_backends_under_which_the_program_would_be_wrong_are_refused(
    environment, words, monkeypatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as raised:
        check_launch_backend()
    assert all(word in str(raised.value) for word in words)


def test_deepspeed_is_refused_before_anything_is_written(small_run, program, tmp_path):
    assert_user_error(
        program(small_run(tmp_path / "run"), ACCELERATE_USE_DEEPSPEED="true"),
        "DeepSpeed",
        "zero2.yaml",
    )
    assert not (tmp_path / "run").exists()


class say_what_is_prepared:
    def __call__(self):
        drawn = "matplotlib.backends.backend_agg" in sys.modules  # imported late by a run
        print("prepared" if drawn and gc.get_freeze_count() > 100_000 else "bare")


def test_programs_are_forked_from_a_server_that_has_prepared_everything(program):
    """Else each takes seconds more, and nothing but the time would say so."""
    done = program(["--help"], say_what_is_prepared())
    assert done.code == 0 and done.out.startswith("prepared")


class deepspeed:
    """What `accelerate launch --use_deepspeed` tells each process."""

    def __call__(self):
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"


def test_what_all_processes_of_a_machine_refuse_is_said_once(small_run, program, tmp_path):
    first, second = together(program, small_run(tmp_path / "run"), deepspeed())
    assert_user_error(first, "DeepSpeed")
    assert second.code == 2 and "error" not in second.err


def test_sums_of_gradients_stay_in_float32_when_products_are_in_bf16(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true"), monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")
    policy = fsdp_plugin("bf16").mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)
    assert fsdp_plugin("fp32").mixed_precision_policy is None

"""What this machine can do for the book, and what to expect of each command, in ten lines.

    make doctor

The time of a training is measured in processor time, so a busy machine does not change it: it
holds for a machine with nothing else to do, and leaves out evaluations and checkpoints. The one
address that is asked is the Hugging Face Hub's, whether it answers.
"""

import os
import platform
import shutil
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import torch
import transformers
from huggingface_hub.constants import ENDPOINT

from distil_lib import TripleLoss, initialize_student, load_teacher
from distil_lib.common.hardware import (
    available_cpus,
    choose_precision,
    describe_machine,
)
from distil_lib.common.paths import PROJECT, data_folder
from distil_lib.masking import MicroBatch
from distil_lib.pages.short_runs import short_distillation
from distil_lib.training.config import PretrainConfig, load_preset

sys.path.insert(0, str(Path(__file__).parent))
from system_chromium import find_chromium

FONTS = {"DejaVu": "DejaVuSans.ttf", "Liberation": "LiberationSans-Regular.ttf"}
FONT_FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
GIB = 2**30


def tokens_per_second(config: PretrainConfig, bf16: bool, steps: int = 3) -> float:
    """Of the default student's distillation by one core: the median of some steps."""
    teacher = load_teacher(data_folder("teacher"))
    student = initialize_student(teacher)
    loss = TripleLoss(config.alpha_ce, config.alpha_mlm, config.alpha_cos, config.temperature)
    shape = (config.batch_size, config.block_size)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, teacher.config.vocab_size, shape, generator=generator)
    masked = torch.rand(shape, generator=generator) < config.mlm_probability
    everywhere = torch.ones(shape, dtype=torch.bool)
    batch = MicroBatch(tokens, tokens.where(masked, -100), everywhere, torch.arange(shape[0]))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    clock = [time.process_time()]
    short_distillation(
        student,
        teacher,
        loss,
        [batch] * (steps + 1),
        bf16=bf16,
        after_step=lambda _: clock.append(time.process_time()),
    )
    torch.set_num_threads(threads)
    taken = [end - begin for begin, end in zip(clock[1:], clock[2:], strict=False)]  # not the first
    return tokens.numel() / statistics.median(taken)


def answers(address: str, seconds: float = 3) -> bool:
    """Whether something listens at the address's host and port."""
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=seconds).close()
    except OSError:
        return False
    return True


def browser_and_fonts() -> str:
    program = find_chromium()
    missing = [
        name
        for name, file in FONTS.items()
        if not any(True for folder in FONT_FOLDERS for _ in folder.rglob(file))
    ]
    fonts = f"fonts for the tests missing: {', '.join(missing)}" if missing else "fonts are there"
    if program is None:
        return f"no Chromium: no `make pdf`, and the pages' tests skip the browser; {fonts}"
    return f"{program}; {fonts}"


def gpus() -> str:
    if not torch.cuda.is_available():
        return "none; nothing in the book needs one"
    memory = torch.cuda.get_device_properties(0).total_memory / GIB
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, {memory:.0f} GiB each"


def lines(speed: float | None = None, endpoint: str = ENDPOINT) -> Iterator[tuple[str, str]]:
    """(what, finding); `speed`, in tokens per second and core, is measured unless it is given."""
    machine, cpus = describe_machine(), available_cpus()
    fits = (3, 10) <= sys.version_info[:2] < (3, 15)
    note = "" if fits else ": the book needs 3.10 to 3.14"
    yield "Python", f"{platform.python_version()}{note}; torch {machine.get('torch', 'is missing')}"
    load = os.getloadavg()[0]
    busy = (
        f"; busy (load {load:.0f}): everything takes longer than said below" if load > cpus else ""
    )
    yield "Cores", f"{cpus} of {machine['processor']}{busy}"
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(PROJECT)
    yield (
        "Memory",
        f"{memory.available / GIB:.0f} of {memory.total / GIB:.0f} GiB free; "
        f"disk: {disk.free / GIB:.0f} GiB free",
    )
    precision, why = choose_precision(torch.device("cpu"))
    yield "Precision", f"{precision} on the CPU: {why}"
    yield "GPU", gpus()
    yield "Browser", browser_and_fonts()
    host = urlsplit(endpoint).hostname
    reached = "answers: --corpus hub:... and teachers of the Hub work"
    alone = "does not answer; nothing is needed from it by default"
    yield "Network", f"{host} {reached if answers(endpoint) else alone}"
    yield "make book", "less than 1 minute, as measured on 2 cores with nothing else to do"
    yield "make test", "11.5 minutes there"
    config = load_preset("mini")
    speed = speed or tokens_per_second(config, bf16=precision == "bf16")
    processes = min(cpus, 2)  # of `accelerate_configs/cpu.yaml`
    minutes = config.max_steps * config.batch_size * config.block_size / speed / processes / 60
    yield (
        "make student",
        f"at least {minutes:.0f} minutes: {speed:,.0f} tokens per second and core, measured now",
    )


def main() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for what, finding in lines():
        print(f"{what:13}{finding}", flush=True)


if __name__ == "__main__":
    main()

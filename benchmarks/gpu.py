"""All measurements of a GPU in eight minutes, each written as soon as it is there.

    python benchmarks/gpu.py --output results/gpu            # what `gpu.sh` starts
    python benchmarks/gpu.py --output /tmp/try --small       # a rehearsal in a minute, on a CPU
    python benchmarks/gpu.py --table results/gpu/results.jsonl

Every part is a process with a time limit of its own: one that hangs or fails costs its share and
nothing else. `results.jsonl` has a line for each figure, `PART.log` what a part has printed, and
`table.md` all of it at a glance.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEAST = 5.0  # seconds with which a part is begun at all
MACHINE = """
import json, sys, torch
from distil_lib.common.hardware import describe_machine, matmul_ceiling
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
def tell(**row):
    with open(sys.argv[1], "a") as file: file.write(json.dumps({"part": "machine"} | row) + "\\n")
tell(machine=describe_machine())
for dtype in (torch.bfloat16, torch.float32):
    tell(ceiling={str(dtype)[6:]: matmul_ceiling(device, dtype, float(sys.argv[2]))})
"""


@dataclass(frozen=True)
class Part:
    """A program, and the seconds it may take."""

    name: str
    command: list[str]
    limit: float
    run: Path | None = None  # a pretraining run's folder, which is read when it is over


def all_parts(folder: Path, small: bool, corpus: str | None) -> list[Part]:
    here, lines = Path(__file__).parent, folder / "results.jsonl"
    text = [] if corpus is None else ["--corpus", corpus]
    python = [sys.executable]

    def program(name: str, *words: object) -> list[str]:
        return [*python, str(here / name), *map(str, words), "--lines", str(lines)]

    def step(size: str, budget: float, *words: object) -> list[str]:
        return program("step.py", "--size", size, "--budget", budget, *words, *text)

    machine = [*python, "-c", MACHINE, str(lines), "0.2" if small else "2"]
    run = folder / "run"
    settings = {
        "output": run, "hidden_layers": 2 if small else 12, "hidden_size": 32 if small else 256,
        "block_size": 16 if small else 128, "batch_size": 8 if small else 1024,
        "micro_batch_size": 8 if small else 1024, "max_steps": 20 if small else 100_000,
        "log_every": 5 if small else 20, "eval_every": 10**6, "save_every": 10 if small else 200,
        "eval_blocks": 8 if small else 500, "time_limit": "40s" if small else "60s",
        "dataloader_num_workers": 1 if small else 4, "seed": 0,
    }  # fmt: skip
    pretrain = [*python, "-m", "distil_lib.launch", str(ROOT / "distil_lib" / "pretrain.py")]
    pretrain += ["--preset", "mini-teacher", *text]
    pretrain += [word for k, v in settings.items() for word in (f"--{k}", str(v))]
    if small:
        words = ("--tokens", 40, "--words", 100, "--width", 16, "--backend", "eager")
        return [
            Part("machine", machine, 60),
            Part("correctness", program("correctness.py", *words), 120),
            Part("step-tiny", step("tiny", 20, "--sequences", 4, "--rounds", 2), 120),
            Part("loader", program("loader.py", "--seconds", 0.2, "--rounds", 1, "--block", 16,
                                   "--sequences", 8, "--workers", 0, 1, *text), 60),
            Part("run", pretrain, 90, run),
        ]  # fmt: skip
    return [
        Part("machine", machine, 45),  # the first imports make bytecode
        Part("correctness", program("correctness.py"), 80),
        # The most important figures first: what is cut off at the end is the least of it.
        Part("step-base", step("base", 90, "--compile", "--rounds", 10), 130),
        Part("run", pretrain, 85, run),
        Part("step-small", step("small", 50, "--compile", "--sequences", 1024, "--rounds", 10), 80),
        Part("loader", program("loader.py", "--seconds", 2, "--rounds", 2, *text), 30),
        Part("loader-small", program("loader.py", "--seconds", 2, "--rounds", 2, "--block", 128,
                                     "--sequences", 1024, *text), 30),
    ]  # fmt: skip


def write(folder: Path, **row: object) -> None:
    with (folder / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def carry_out(part: Part, folder: Path, seconds: float) -> bool:
    """Run a part for so many seconds at most, with all that it starts; whether it went well."""
    start, log = time.monotonic(), folder / f"{part.name}.log"
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            part.command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
            start_new_session=True,  # so that its workers end with it
        )
        try:
            code: int | str = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = f"over its {seconds:.0f} seconds"
        finally:
            with contextlib.suppress(ProcessLookupError):  # its workers, if it has left any
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    took = time.monotonic() - start
    row: dict = {"part": part.name, "ended": code, "took": round(took, 1)}
    if code != 0:
        row["last_words"] = log.read_text("utf-8", "replace")[-600:]
    write(folder, **row)
    if part.run is not None:
        write(folder, part=part.name, **read_run(part.run))
    return code == 0


def read_run(run: Path) -> dict:
    """What a pretraining run has left: speed, and whether checkpoint and model are there."""
    metrics = run / "metrics.jsonl"
    rows = (
        [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    )
    told = [row for row in rows if "tokens_per_second" in row]
    found: dict = {
        "checkpoints": sorted(p.name for p in run.glob("checkpoints/step-*")),
        "model": (run / "model" / "model.safetensors").is_file(),
        "steps": told[-1]["step"] if told else 0,
    }
    for name in ("tokens_per_second", "mfu"):  # the first line pays for compiling
        values = [row[name] for row in told[1:] or told]
        found[name] = statistics.median(values) if values else None
    return found | {"evaluations": [row for row in rows if "mlm_loss" in row][-1:]}


# ------------------------------------------------------------------------------------------- table
def table(lines: list[dict]) -> str:
    """All results as Markdown, from the lines of `results.jsonl`."""
    out = []
    for row in lines:
        if "machine" in row and row["part"] == "machine":
            out.append(", ".join(f"{k} {v}" for k, v in row["machine"].items()) + "\n")
        if "ceiling" in row and row["part"] == "machine":
            (name, value), *_ = row["ceiling"].items()
            out.append(f"products of random matrices reach {value / 1e12:.2f} TFLOP/s in {name}\n")
    checks = [row for row in lines if "check" in row]
    if checks:
        out += ["| check against fp64 | | largest error |", "|---|---|---|"]
        for row in checks:
            error = row["error"]
            error = f"{error:.1e}" if isinstance(error, float) else error.splitlines()[0][:80]
            out.append(f"| {row['check']} | {'right' if row['ok'] else '**wrong**'} | {error} |")
        out.append("")
    for part in dict.fromkeys(row["part"] for row in lines if "arm" in row):
        out += [*step_table(part, [row for row in lines if row["part"] == part]), ""]
    loads: dict = {}
    for row in lines:
        if row["part"] == "loader" and "workers" in row:
            key = (row["sequences"], row["block"], row["workers"])
            loads.setdefault(key, []).append(row["tokens_per_second"])
    if loads:
        out += ["| loader | workers | tokens/s |", "|---|---|---|"]
        for (sequences, block, workers), speeds in loads.items():
            speed = statistics.median(speeds)
            out.append(f"| {sequences} x {block} | {workers} | {speed:,.0f} |")
        out.append("")
    for row in lines:
        if "checkpoints" in row and row["tokens_per_second"] is not None:
            model = "written" if row["model"] else "**missing**"
            saved = ", ".join(row["checkpoints"]) or "**none**"
            out.append(
                f"pretraining run: {row['tokens_per_second']:,.0f} tokens/s, MFU {row['mfu']:.1%}, "
                f"{row['steps']} steps; checkpoints {saved}; model {model}\n"
            )
    out += ["| part | ended | seconds |", "|---|---|---|"]
    out += [f"| {r['part']} | {r['ended']} | {r['took']} |" for r in lines if "ended" in r]
    return "\n".join(out)


def step_table(part: str, rows: list[dict]) -> list[str]:
    """The arms of `step.py`: medians over the rounds that were reached."""
    ceiling = next((row["ceiling"] for row in rows if "ceiling" in row), {})
    about = next((row for row in rows if "sequences" in row), None)
    shape = f", {about['sequences']} x {about['block']} tokens" if about else ""
    out = [f"| {part}{shape} | tokens/s | MFU | memory (MB) | first step (s) |"]
    out.append("|---|---|---|---|---|")
    for name in dict.fromkeys(row["arm"] for row in rows if "arm" in row):
        own = [row for row in rows if row.get("arm") == name]
        failed = [row["error"] for row in own if "error" in row]
        facts = next((row for row in own if "tokens" in row), None)
        seconds = [row["seconds"] for row in own if "seconds" in row]
        if failed or facts is None or not seconds:
            why = failed[0].splitlines()[0][:80] if failed else "not reached"
            out.append(f"| {name} | {why} | | | |")
            continue
        speed = facts["tokens"] / statistics.median(seconds)
        mfu = speed * facts["flops_per_token"] / ceiling.get(facts["precision"], float("inf"))
        memory, first = facts["peak_bytes"] / 1e6, facts["first_seconds"]
        out.append(f"| {name} | {speed:,.0f} | {mfu:.0%} | {memory:,.0f} | {first:.1f} |")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/gpu"))
    parser.add_argument("--seconds", type=float, default=480.0, help="for everything together")
    parser.add_argument("--small", action="store_true", help="a rehearsal with tiny sizes")
    parser.add_argument("--corpus", default=None, help="text instead of installed documentation")
    parser.add_argument("--parts", nargs="+", default=None, help="only these")
    parser.add_argument("--table", type=Path, default=None, help="print the table of these results")
    options = parser.parse_args()
    if options.table:
        try:
            text = table([json.loads(line) for line in options.table.read_text().splitlines()])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            parser.error(f"--table {options.table} holds no results ({error})")
        print(text)
        return
    folder = options.output.resolve()
    parts = all_parts(folder, options.small, options.corpus)
    if not options.seconds > 0:  # NaN, too
        parser.error(f"--seconds is {options.seconds:g}: it must be positive")
    if unknown := {*(options.parts or ())} - {part.name for part in parts}:
        parser.error(f"--parts: there is no {min(unknown)!r}, but {[p.name for p in parts]}")
    end = time.monotonic() + options.seconds
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output: {folder} cannot be made ({error.strerror})")
    if (folder / "results.jsonl").exists():
        parser.error(f"--output: {folder} holds results already: name another folder")
    good = True
    for part in parts:
        if options.parts and part.name not in options.parts:
            continue
        # Whoever gives more time in all gives it to every part: a busy machine is a slow one.
        seconds = min(part.limit * max(options.seconds / 480, 1), end - time.monotonic())
        if seconds < LEAST:
            write(folder, part=part.name, ended="no time was left", took=0.0)
            good = False
            continue
        print(f"{part.name}, {seconds:.0f} seconds at most", flush=True)
        good = carry_out(part, folder, seconds) and good
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    text = table([json.loads(line) for line in lines])
    (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

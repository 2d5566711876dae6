"""Muon's update of many matrices: PyTorch's, one after the other, against stacks of one shape.

    python benchmarks/optimizers.py --layers 12 --width 256
    python benchmarks/optimizers.py --layers 6 --width 768 --rounds 3

The two take turns. Seconds are those that this process computes on a CPU, where a busy machine
hardly changes them, and those that pass on a GPU. Kernels are counted by PyTorch's profiler: on a
GPU what is launched; on a CPU operations that compute and are not made of others.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from arguments import parse
from torch import nn
from torch.profiler import ProfilerActivity, profile

from distil_lib.common.hardware import describe_machine
from distil_lib.common.processes import run_program
from distil_lib.training.optimization import StackedMuon

OPTIMIZERS = {"one by one": torch.optim.Muon, "stacks": StackedMuon}


def matrices(layers: int, width: int, device: str) -> list[nn.Parameter]:
    """Those of BERT's layers, with gradients."""
    generator = torch.Generator(device).manual_seed(0)
    shapes = [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]
    made = []
    for shape in shapes * layers:
        draw = [torch.randn(shape, generator=generator, device=device) for _ in range(2)]
        made.append(nn.Parameter(draw[0]))
        made[-1].grad = draw[1]
    return made


def kernels(step, device: str) -> int:
    """How many a step launches."""
    activity = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as record:
        step()
    events = record.events()
    if device == "cuda":
        return sum(e.device_type == torch.autograd.DeviceType.CUDA for e in events)
    return sum(not e.cpu_children and e.name.startswith("aten::") for e in events)


def measure(options: argparse.Namespace) -> dict:
    settings = {"lr": 1e-3, "weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"}
    steps, taken = {}, {name: [] for name in OPTIMIZERS}
    for name, kind in OPTIMIZERS.items():
        steps[name] = kind(matrices(options.layers, options.width, options.device), **settings).step
        steps[name]()
    gpu = options.device == "cuda"
    clock = time.perf_counter if gpu else time.process_time
    for _ in range(options.rounds):
        for name, step in steps.items():
            start = clock()
            step()
            if gpu:
                torch.cuda.synchronize()
            taken[name].append(clock() - start)
    counted = {name: kernels(step, options.device) for name, step in steps.items()}
    return {"seconds": taken, "kernels": counted}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, default=None, help="write all samples into this file")
    options = parse(parser)
    torch.set_num_threads(1)
    result = {"machine": describe_machine(), "layers": options.layers, "width": options.width}
    result |= {"device": options.device} | measure(options)
    print(f"| Muon, {options.layers} x {options.width} | ms a step | kernels |\n|---|---|---|")
    for name, seconds in result["seconds"].items():
        kernels = result["kernels"][name]
        print(f"| {name} | {1e3 * statistics.median(seconds):.1f} | {kernels:,} |")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_program(main)

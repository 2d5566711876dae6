"""No program asks the network unasked.

Oracle: Python's sockets, replaced in the program's own process by ones that keep a list and refuse.
What goes past Python (ONNX Runtime) has its own test in `tests/export`.
"""

import os
import subprocess
import sys

import pytest

BLOCKED = """
import runpy, socket, sys
tried, connect = [], socket.socket.connect
def refuse(*arguments, **options):
    tried.append(arguments)
    raise OSError("no network in this test")
def local(self, address):
    return connect(self, address) if isinstance(address, str) else refuse(address)
socket.socket.connect = socket.socket.connect_ex = local  # processes of one machine: a path
socket.getaddrinfo = socket.create_connection = socket.gethostbyname = refuse
if sys.argv[1] == "planted":
    try:
        socket.create_connection(("example.org", 443))
    except OSError:
        pass
else:
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
print("asked", tried)
"""
PRETRAIN = """--preset demo --corpus text.txt --max_steps 1 --batch_size 2
--micro_batch_size 2 --eval_blocks 4"""
FINETUNE = "--task own.yaml --seeds 1 --epochs 1 --threads 1"
TASK = "{source: ., text: text, label: label, metric: accuracy}"
ROWS = "text,label\n" + "\n".join(f"Sentence {n} of the test.,{n % 2}" for n in range(16))


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["planted"], "asked [(('example.org', 443),)]"),
        (["distil_lib.pretrain", *PRETRAIN.split(), "--output", "run"], "asked []"),
        (["distil_lib.finetune", *FINETUNE.split(), "--output", "result.json"], "asked []"),
    ],
    ids=["planted", "pretrain", "finetune"],
)
def test_sockets_stay_closed(arguments, asked, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_OFFLINE")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    (tmp_path / "text.txt").write_text(
        "\n\n".join(f"Sentence {n} of the test." for n in range(999))
    )
    (tmp_path / "own.yaml").write_text(TASK)
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text(ROWS)
    command = [sys.executable, "-c", BLOCKED, *arguments]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == asked

"""How processes that train together find each other: in time, or with a message that says why not.

    watch_machines(options)         # before Accelerate's launcher starts processes on this machine
    state = meet()                  # in each process: Accelerate's state, when all have met

PyTorch alone waits for 10 to 30 minutes, or for as long as the exchange that comes first, and then
speaks of sockets. `DISTIL_CONNECT_SECONDS` sets the limit, 120 by default.
"""

import os
import re
import signal
import socket
import threading
import time
from argparse import Namespace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psutil

from distil_lib.common.errors import say
from distil_lib.errors import UserError

if TYPE_CHECKING:
    from accelerate import PartialState

LIMIT = "DISTIL_CONNECT_SECONDS"
GLOO_SECONDS = 30  # all are there by then: what they still need is a way to each other


def connect_seconds() -> int:
    """How long to wait for other machines and processes.

    Raises:
        UserError: the environment names no such time.
    """
    said = os.environ.get(LIMIT, "120")
    if not said.isdecimal() or not 1 <= int(said) <= 86_400:
        raise UserError(f"{LIMIT} is {said!r}.", "Give whole seconds, from 1 to 86400.")
    return int(said)


def addresses() -> str:
    """This machine's addresses that others may reach, each with its interface."""
    found = [
        f"{one.address} ({name})"
        for name, each in sorted(psutil.net_if_addrs().items())
        for one in each
        if one.family == socket.AF_INET and not one.address.startswith("127.")
    ]
    return ", ".join(found) or "none but 127.0.0.1"


def unreachable(host: str, port: int) -> str | None:
    """Why nothing answers there, or None if something does."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


# ---------------------------------------------------------------------------------------- launchers
def watch_machines(options: Namespace) -> None:
    """Bound how long this machine's launcher waits for those of the others.

    If no process has started in time, a thread says why, and the program ends with code 2.

    Args:
        options: Accelerate's, of its launcher.

    Raises:
        UserError: the address of the first machine is missing, or the limit is no time.
    """
    if options.num_machines < 2 or options.rdzv_backend != "static":
        return
    if not options.main_process_ip:
        raise UserError(
            "Several machines do not find each other without the address of the first.",
            f"Give the same one on all machines; this one has {addresses()}.",
            setting="main_process_ip",
        )
    seconds = connect_seconds()
    options.rdzv_conf = f"timeout={seconds + 60},{options.rdzv_conf or ''}".rstrip(",")
    # PyTorch waits outside Python, where Ctrl-C is not heeded; it takes over when processes start.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def watch() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if psutil.Process().children():  # they start when all machines have come
                return
            time.sleep(0.2)
        say(*machines_apart(options))
        os._exit(2)

    threading.Thread(target=watch, name="watch_machines", daemon=True).start()


def machines_apart(options: Namespace) -> tuple[str, str]:
    """(problem, remedy), as it looks from this machine."""
    host, port = options.main_process_ip, options.main_process_port
    rank = int(options.machine_rank or 0)
    first, seconds = f"{host}:{port}", connect_seconds()
    reason = unreachable(host, int(port))
    if rank == 0 and reason:
        problem = f"This machine, the first, does not reach itself at {first} ({reason})."
        remedy = f"Give one of its addresses as --main_process_ip on all machines: {addresses()}."
    elif rank == 0:
        problem = f"Not all of {options.num_machines} machines came to {first} in {seconds} s."
        remedy = (
            "See whether another one has refused the command: it says why. Start the same on each, "
            "with --machine_rank 1 and so on. There, "
            f"`nc -vz {host} {port}` says whether it reaches this port."
        )
    else:
        answer = reason or "what answers there is no launcher with --machine_rank 0"
        problem = f"Machine {rank} did not meet the first one at {first} in {seconds} s ({answer})."
        remedy = (
            "On the first machine, see that the same command runs with --machine_rank 0, that "
            f"`ip address` lists {host}, and that its firewall lets port {port} in; "
            f"here, `nc -vz {host} {port}` says whether it does."
        )
    return problem, f"{remedy} {LIMIT} makes the limit longer."


# ---------------------------------------------------------------------------------------- processes
def meet() -> "PartialState":
    """Accelerate's state of this process, once all processes of the run have met.

    Raises:
        UserError: they have not, in time.
    """
    import torch
    from accelerate import PartialState

    from distil_lib.common.hardware import on_cpu

    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1 or torch.distributed.is_initialized():
        return PartialState(cpu=on_cpu())
    meeting = _Meeting(world)
    # In a thread: PyTorch waits outside Python, where signals are not heeded, not even the one that
    # tells this process that its launcher is gone.
    thread = threading.Thread(target=meeting.hold, name="meet", daemon=True)
    thread.start()
    while thread.is_alive() and time.monotonic() < meeting.end:
        thread.join(0.1)
    if not meeting.connected:
        error = meeting.error()
        error.shared = True  # type: ignore[attr-defined]  # one process of each machine says it
        raise error
    return PartialState(cpu=on_cpu())  # while the store of the meeting is still there


class _Meeting:
    """What the processes of a run do to find each other, and how far that has come."""

    def __init__(self, world: int):
        environment = os.environ.get
        self.world, self.rank = world, int(environment("RANK", 0))
        self.host = environment("MASTER_ADDR", "127.0.0.1")
        self.port = int(environment("MASTER_PORT", 29500))
        # Those that do not speak wait longer, so that the one that does is not ended before.
        self.seconds = connect_seconds() + (5 if environment("LOCAL_RANK", "0") != "0" else 0)
        self.end = time.monotonic() + self.seconds + 5  # PyTorch's own word comes before, mostly
        self.store: Any = None
        self.group: Any = None
        self.complete = self.connected = False  # all have come to the store; to each other
        self.failure = "no answer"

    def hold(self) -> None:
        """Meet at the store of process 0, then connect each with each."""
        from torch.distributed import PrefixStore, ProcessGroupGloo, TCPStore

        environment = os.environ.get
        limit = timedelta(seconds=self.seconds)
        try:
            store = TCPStore(
                self.host,
                self.port,
                is_master=self.rank == 0 and environment("TORCHELASTIC_USE_AGENT_STORE") != "True",
                timeout=limit,
                wait_for_workers=False,
                multi_tenant=True,  # that of the training comes to the same port
            )
            attempt = environment("TORCHELASTIC_RESTART_COUNT", "0")
            self.store = PrefixStore(f"distil_lib/{attempt}", store)
            self.store.set(str(self.rank), socket.gethostname())
            self.store.wait([str(rank) for rank in range(self.world)], limit)
            self.complete, self.end = True, time.monotonic() + GLOO_SECONDS + 5
            limit = timedelta(seconds=GLOO_SECONDS)
            self.group = ProcessGroupGloo(self.store, self.rank, self.world, limit)
            self.group.barrier().wait()  # nobody leaves before all are connected
            self.connected = True
        except RuntimeError as error:
            self.failure = str(error).partition("\n")[0]

    def error(self) -> UserError:
        """What has failed, for the reader."""
        first = f"{self.host}:{self.port}"
        reason = re.sub(r"\[/[^]]*\] ?", "", self.failure)  # without PyTorch's source files
        if self.complete:
            return UserError(
                f"Process {self.rank} reaches {first}, but not each of the others ({reason}).",
                "On each machine, let GLOO_SOCKET_IFNAME (on GPUs NCCL_SOCKET_IFNAME, too) name "
                f"the network interface that joins them. On this one there are: {addresses()}.",
            )
        longer = f"{LIMIT} makes the limit of {connect_seconds()} s longer."
        gone = unreachable(self.host, self.port)
        if self.store is None or gone:
            return UserError(
                f"Process {self.rank} does not reach process 0 at {first} ({gone or reason}).",
                "See that process 0 runs, that MASTER_ADDR is an address of its machine, and that "
                f"MASTER_PORT is open there: `nc -vz {self.host} {self.port}` says so. {longer}",
            )
        late = [str(rank) for rank in range(self.world) if not self.store.check([str(rank)])]
        return UserError(
            f"Process {self.rank} has waited at {first} in vain for {len(late)} of {self.world} "
            f"processes: {', '.join(late[:8])}.",
            f"See what they have said on their machines, and whether they were started. {longer}",
        )

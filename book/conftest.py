"""How pytest starts the chapters' kernels (`make chapters`).

They are forked from a process that has imported the libraries already, which saves each chapter
four seconds. Only what others wrote is imported beforehand. On other systems than Linux, where
libraries may not bear to be forked, and with DISTIL_FORKED_KERNELS=0 kernels start as a reader's.
"""

import gc
import multiprocessing
import os
import signal
import sys
from importlib.metadata import EntryPoint
from multiprocessing.process import BaseProcess
from pathlib import Path

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

FORKS = multiprocessing.get_context("forkserver" if sys.platform == "linux" else None)
IMPORTED = [
    "ipykernel.kernelapp",
    "torch._dynamo",
    "transformers.models.bert.modeling_bert",
    "transformers.models.distilbert.modeling_distilbert",
    "datasets",
    "matplotlib.pyplot",
    "seaborn",
    "statsmodels.api",
]


def kernel(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be a kernel, in a process of its own."""
    gc.freeze()  # what was imported is not searched for garbage
    os.setsid()  # an interrupt reaches what a cell has started
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # as nbval does
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))
    os.chdir(folder)
    tests = Path(__file__).parents[1] / "tests"  # pytest has put its folders there
    sys.path[:] = [path for path in sys.path if not Path(path).is_relative_to(tests)]
    import pandas
    from ipykernel.kernelapp import IPKernelApp

    pandas.set_option("display.max_columns", 20)  # it took the server for a terminal
    IPKernelApp.launch_instance(argv=arguments)


class _Forked:
    """A process of `multiprocessing` with the methods of one of `subprocess`."""

    stdin = stdout = stderr = None

    def __init__(self, process: BaseProcess):
        self.process = process
        self.pid, self.kill, self.terminate = process.pid, process.kill, process.terminate

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        return self.poll()

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


class ForkedKernels(LocalProvisioner):
    """What jupyter_client asks for a process."""

    async def launch_kernel(self, cmd, *, cwd, env, **_):
        """Fork one that reads the connection file which `cmd` names."""
        arguments = cmd[cmd.index("-f") :]
        process = FORKS.Process(target=kernel, args=(arguments, cwd, env), daemon=True)
        process.start()
        self.process, self.pid, self.pgid = _Forked(process), process.pid, process.pid
        return self.connection_info


if sys.platform == "linux" and os.environ.get("DISTIL_FORKED_KERNELS") != "0":
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as a kernel says it
    FORKS.set_forkserver_preload(IMPORTED)
    factory = KernelProvisionerFactory.instance()
    factory.provisioners["forked"] = EntryPoint("forked", f"{__name__}:ForkedKernels", "")
    factory.default_provisioner_name = "forked"

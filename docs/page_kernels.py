"""Starts the Python of each page as a fork of one that has imported what pages need.

That saves each page the seconds that imports take, and the making of the text that small trainings
read. Every page still has a process of its own.

    python page_kernels.py MODULE           prepares, says at which address, and waits to be asked
    python page_kernels.py CONNECTION_FILE  what Jupyter starts: asks, and lives as long as the fork
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

_ADDRESS = "FLAX_TRANSFORMER_KERNELS"


@contextlib.contextmanager
def page_kernels(module: str, work: Path) -> Iterator[subprocess.Popen]:
    """Has Jupyter start kernels, from now on, as forks of a Python that has imported `module`.

    module: what it imports, and whose `prepare` it calls; neither may start a thread
    work: a folder for what Jupyter reads

    Yields that Python, which may not be ready yet; `wait_until_ready` waits for it.
    """
    folder = work / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, __file__, "{connection_file}"]
    spec = {"argv": words, "display_name": "Python", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    os.environ["JUPYTER_PATH"] = str(work / "jupyter")
    # A process with threads must not be forked, and NumPy's library for products would start some.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, module]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as server:
        yield server


def wait_until_ready(server: subprocess.Popen) -> None:
    """Waits until pages can be run; raises `SystemExit` where what they need cannot be imported."""
    assert server.stdout is not None
    os.environ[_ADDRESS] = server.stdout.readline().strip()
    if not os.environ[_ADDRESS]:
        sys.exit("what the pages import cannot be imported: see above")


def serve(module: str) -> None:
    """Prepares by `module`, prints an address, and forks for each who asks, until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the build, and that ends stdin
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how forks end
    importlib.import_module("ipykernel.kernelapp")
    importlib.import_module(module).prepare()
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{folder}/door")
        door.listen()
        print(door.getsockname(), flush=True)
        os.dup2(2, 1)  # what a page's process says is for the terminal
        while door in select.select([door, sys.stdin], [], [])[0]:
            link, _ = door.accept()
            if os.fork() == 0:
                try:
                    door.close()
                    _become_kernel(link)
                finally:
                    os._exit(0)  # past everything that is the server's to tidy
            link.close()


def _become_kernel(link: socket.socket) -> None:
    """Does as Jupyter's own kernel would that was started where, and with what, `link` says."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    with link.makefile() as lines:
        connection_file, folder, environment = json.loads(lines.readline())
    os.chdir(folder)
    os.environ |= environment
    threading.Thread(target=_end_with, args=[link], daemon=True).start()

    from ipykernel.kernelapp import IPKernelApp

    # Below an error, it has nothing to say that concerns a reader of the site.
    words = ["-f", connection_file, "--log-level=ERROR"]
    IPKernelApp.launch_instance([*words, f"--IPKernelApp.parent_handle={os.getppid()}"])


def _end_with(link: socket.socket) -> None:
    link.recv(1)  # returns when the other end is closed, however its process ended
    os._exit(1)


def ask(connection_file: str) -> None:
    """Has a kernel started as this process was, for `connection_file`, and waits for its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Jupyter sends it before it asks for the end
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(os.environ[_ADDRESS])
        request = [connection_file, os.getcwd(), dict(os.environ)]
        link.sendall(json.dumps(request).encode() + b"\n")
        link.recv(1)


if __name__ == "__main__":
    (ask if sys.argv[1].endswith(".json") else serve)(sys.argv[1])

"""The Python of a page: a fork of one that has imported what pages need, and else its own."""

import ast
import os
import signal
import sys
import time
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
pytest.importorskip("ipykernel")
jupyter = pytest.importorskip("jupyter_client.manager")

PREPARED = """
import os, threading

process = os.getpid()

def prepare():
    global threads
    threads = threading.active_count()
"""
OF_PROCESSES = "(os.getpid(), os.getppid(), prepared.process, prepared.threads)"
OF_THE_PAGE = "(os.getcwd(), os.environ['PAGE'])"


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    (tmp_path / "prepared.py").write_text(PREPARED)
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name in ("JUPYTER_PATH", "FLAX_TRANSFORMER_KERNELS"):
        monkeypatch.setenv(name, "")  # so that it is as before when the test has ended
    import page_kernels

    yield page_kernels
    sys.modules.pop("page_kernels")


def ends(process: int) -> bool:
    for _ in range(100):
        if not Path(f"/proc/{process}").exists():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="the processes are looked for there")
@pytest.mark.parametrize("how", ["asked to", "killed"])
def test_a_page_has_its_own_process_until_it_ends(kernels, tmp_path, monkeypatch, how):
    with kernels.page_kernels("prepared", tmp_path / "work") as server:
        kernels.wait_until_ready(server)
        monkeypatch.setenv("PAGE", "of this page")
        manager, client = jupyter.start_new_kernel(cwd=str(tmp_path))
        asked = {"processes": OF_PROCESSES, "page": OF_THE_PAGE}
        reply = client.execute_interactive(
            "import os, prepared", user_expressions=asked, timeout=60
        )
        found = {
            name: ast.literal_eval(value["data"]["text/plain"])
            for name, value in reply["content"]["user_expressions"].items()
        }
        process, parent, prepared_by, threads = found["processes"]
        assert process != parent == prepared_by == server.pid and threads == 1
        assert found["page"] == (str(tmp_path), "of this page")
        client.stop_channels()
        if how == "killed":
            os.kill(manager.provisioner.pid, signal.SIGKILL)
        else:
            manager.shutdown_kernel()
        assert ends(process)
        manager.cleanup_resources()


def test_a_page_does_not_wait_for_what_cannot_be_imported(kernels, tmp_path):
    (tmp_path / "prepared.py").write_text("import nothing_of_this_name")
    with (
        kernels.page_kernels("prepared", tmp_path / "work") as server,
        pytest.raises(SystemExit, match="cannot be imported"),
    ):
        kernels.wait_until_ready(server)

"""Makes the site: trains the quick start where that is not done, runs every page, checks the links.

    pip install -e '.[docs]'
    python docs/build.py            # docs/_site/index.html
    python docs/build.py --short    # runs every block of code, with models that hardly learn

A page whose code raises, or that states what is not so, ends the build with code 1; so does any
warning. Only pages that changed run again, or all if the code or the model did.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
WORK, SITE = DOCS / "_work", DOCS / "_site"

sys.path.insert(0, str(DOCS))


def prepare_environment(workdir: Path, short: bool) -> None:
    """Sets what the pages' processes read: where `lab` finds things."""
    os.environ |= {
        "PYTHONPATH": os.pathsep.join([str(DOCS), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "FLAX_TRANSFORMER_WORKDIR": str(workdir),
        "FLAX_TRANSFORMER_LAB": str(WORK / ("short" if short else "full")),
        "FLAX_TRANSFORMER_SHORT": "1" if short else "",
    }


@contextmanager
def quick_start_training(lock: Path) -> Iterator[subprocess.Popen]:
    """Has the quick start trained, beside pages that do not need it; holds `lock` meanwhile."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # and not released here, as the process below has it too
        command = [sys.executable, "-c", "import lab; lab.train_quick_start()"]
        training = subprocess.Popen(command, pass_fds=[held.fileno()])
    try:
        yield training
    finally:
        training.terminate()  # where an error has come first; a training that is stopped is saved
        training.wait()


def made_from(workdir: Path | None, short: bool) -> str:
    """Returns what changes when all pages must run again: a digest of the code and the model.

    workdir: of a model that this build has not trained
    """
    code = [DOCS / "lab.py", DOCS / "conf.py", *(ROOT / "flax_transformer").rglob("*.py")]
    model = [workdir / "metrics.jsonl"] if workdir else []
    digest = hashlib.sha256()
    for path in sorted([*code, *(ROOT / "configs").glob("*.py"), *model]):
        digest.update(path.read_bytes() if path.exists() else b"")
    return f"{digest.hexdigest()} {short} {workdir}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="models that hardly learn")
    parser.add_argument("--fresh", action="store_true", help="forget pages and trainings of before")
    parser.add_argument("--workdir", type=Path, help="a trained quick start to look into")
    parser.add_argument("--processes", type=int, default=2, help="pages that run at the same time")
    arguments = parser.parse_args()
    if arguments.workdir and not (arguments.workdir / "config.json").exists():
        parser.error(f"--workdir {arguments.workdir} holds no trained quick start: leave it out")
    start = time.monotonic()
    if arguments.fresh:
        shutil.rmtree(WORK, ignore_errors=True)
        shutil.rmtree(SITE, ignore_errors=True)
    own = WORK / "short" / "quickstart" if arguments.short else ROOT / "runs" / "quickstart"
    workdir = (arguments.workdir or own).resolve()
    prepare_environment(workdir, arguments.short)

    from page_kernels import page_kernels, wait_until_ready
    from run_pages import Build
    from site_check import check_site

    key = made_from(arguments.workdir, arguments.short)
    build = Build(DOCS, SITE, WORK / "doctrees")
    with ExitStack() as beside:
        if arguments.workdir is None:
            build.training = WORK / "training"
            training = beside.enter_context(quick_start_training(build.training))
        kernels = beside.enter_context(page_kernels("lab", WORK))
        wait_until_ready(kernels)
        faults = build.run(arguments.processes, key, arguments.fresh) or check_site(SITE)
        if build.training and training.wait():
            sys.exit("The quick start was not trained: see above.")
    if faults:
        sys.exit("\n".join([f"\nThe site has faults ({len(faults)}):", *faults]))
    print(f"\nThe site is made, in {time.monotonic() - start:.0f} s:")
    print(f"  {SITE / 'index.html'}")


if __name__ == "__main__":
    main()

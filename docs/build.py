"""Makes the site: trains the quick start where that is not done, runs every page, checks the links.

    pip install -e '.[docs]'
    python docs/build.py            # docs/_site/index.html
    python docs/build.py --short    # runs every block of code, with models that hardly learn

A page whose code raises, or that states what is not so, ends the build with code 1; so does any
warning. Only pages that changed run again, or all if the code or the model did.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
WORK, SITE = DOCS / "_work", DOCS / "_site"

sys.path.insert(0, str(DOCS))

SHORT_STEPS = 30


def train_quick_start(workdir: Path, short: bool) -> None:
    """Trains the model that the pages look into, or goes on where its training stopped."""
    command = [sys.executable, "train.py", "--config", "configs/quickstart.py"]
    flags = {"steps": SHORT_STEPS, "evaluate-every": SHORT_STEPS, "checkpoint-every": SHORT_STEPS}
    if short:
        command += [f"--training.{name}={value}" for name, value in flags.items()]
        command += ["--optimizer.warmup-steps=10", "--optimizer.cooldown-steps=5"]
    subprocess.run([*command, "--workdir", str(workdir)], cwd=ROOT, check=True)


def prepare_environment(workdir: Path, short: bool) -> None:
    """Sets what the pages' processes read: where `lab` finds things."""
    os.environ |= {
        "PYTHONPATH": os.pathsep.join([str(DOCS), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "FLAX_TRANSFORMER_WORKDIR": str(workdir),
        "FLAX_TRANSFORMER_LAB": str(WORK / ("short" if short else "full")),
        "FLAX_TRANSFORMER_SHORT": "1" if short else "",
    }


def made_from(workdir: Path, short: bool) -> str:
    """Returns what changes when all pages must run again: a digest of the code and the model."""
    code = [DOCS / "lab.py", DOCS / "conf.py", *(ROOT / "flax_transformer").rglob("*.py")]
    digest = hashlib.sha256()
    for path in sorted([*code, *(ROOT / "configs").glob("*.py"), workdir / "metrics.jsonl"]):
        digest.update(path.read_bytes() if path.exists() else b"")
    return f"{digest.hexdigest()} {short} {workdir}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="models that hardly learn")
    parser.add_argument("--fresh", action="store_true", help="forget pages and trainings of before")
    parser.add_argument("--workdir", type=Path, help="a trained quick start to look into")
    parser.add_argument("--processes", type=int, default=2, help="pages that run at the same time")
    arguments = parser.parse_args()
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

    with page_kernels("lab", WORK) as kernels:
        if arguments.workdir is None:
            train_quick_start(workdir, arguments.short)
        trained = time.monotonic()
        wait_until_ready(kernels)
        build = Build(DOCS, SITE, WORK / "doctrees")
        key = made_from(workdir, arguments.short)
        faults = build.run(arguments.processes, key, arguments.fresh) or check_site(SITE)
    if faults:
        sys.exit("\n".join([f"\nThe site has faults ({len(faults)}):", *faults]))
    seconds, training = time.monotonic() - start, trained - start
    print(f"\nThe site is made, in {seconds:.0f} s, of which the model took {training:.0f} s:")
    print(f"  {SITE / 'index.html'}")


if __name__ == "__main__":
    main()

"""Makes the site: trains the quick start where that is not done, runs every page, checks the links.

    pip install -e '.[docs]'
    python docs/build.py            # docs/_site/index.html
    python docs/build.py --short    # runs every block of code, with models that hardly learn

A page whose code raises, or that states what is not so, ends the build; so does any warning.
"""

import argparse
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


def run_pages(workdir: Path, short: bool, fresh: bool) -> None:
    """Runs Sphinx, with the environment that `lab` reads in each page's process."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(DOCS), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "FLAX_TRANSFORMER_WORKDIR": str(workdir),
        "FLAX_TRANSFORMER_LAB": str(WORK / ("short" if short else "full")),
        "FLAX_TRANSFORMER_SHORT": "1" if short else "",
    }
    options = ["-T", "-W", "--keep-going", "-b", "html", "-d", str(WORK / "doctrees")]
    if fresh:
        options.append("-E")
    subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(DOCS), str(SITE)],
        env=environment,
        check=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="models that hardly learn")
    parser.add_argument("--fresh", action="store_true", help="forget pages and trainings of before")
    parser.add_argument("--workdir", type=Path, help="a trained quick start to look into")
    arguments = parser.parse_args()
    start = time.monotonic()
    if arguments.fresh:
        shutil.rmtree(WORK, ignore_errors=True)
        shutil.rmtree(SITE, ignore_errors=True)
    workdir = arguments.workdir
    if workdir is None:
        workdir = WORK / "short" / "quickstart" if arguments.short else ROOT / "runs" / "quickstart"
        train_quick_start(workdir, arguments.short)
    trained = time.monotonic()
    run_pages(workdir.resolve(), arguments.short, arguments.fresh)
    from site_check import check_site

    pages = check_site(SITE)
    done = time.monotonic()
    print(
        f"\n{pages} pages in {done - start:.0f} s, of which the model took "
        f"{trained - start:.0f} s. To read them:\n  {SITE / 'index.html'}"
    )


if __name__ == "__main__":
    main()

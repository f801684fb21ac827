"""The package as pip installs it: one program, with the configs that come with it, anywhere."""

import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import flax_transformer
from flax_transformer.commands import main
from flax_transformer.runtime import invocation
from flax_transformer.runtime.invocation import how_to_start, program_name

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "flax_transformer", "configs")
SMALL = {
    "data.num-pairs": 300,
    "tokenizer.vocabulary-size": 400,
    "batch.rows": 8,
    "model.num-encoder-layers": 1,
    "model.num-decoder-layers": 1,
    "model.d-model": 16,
    "model.num-heads": 2,
    "model.d-ff": 32,
    "optimizer.warmup-steps": 1,
    "optimizer.cooldown-steps": 1,
    "training.steps": 4,
    "training.validation-sentences": 2,
    "decoding.beam-size": 1,
    "decoding.extra-length": 1,
    "decoding.max-source-length": 16,
}
"""What makes the quick start quicker still."""

PROGRAM = """
import sys
from flax_transformer.commands.main import main
if __name__ == "__main__":
    sys.exit(main())
"""
"""As pip writes it."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, for setuptools leaves files where it builds."""
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    if int(version.partition(".")[0]) < 77:
        pytest.skip(
            "the development dependencies are not installed: setuptools 77 builds the wheel"
        )
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / "source" / name, ignore=ignored)
        else:
            (folder / "source").mkdir(exist_ok=True)
            shutil.copy(source, folder / "source")
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    command = [sys.executable, "-W", "ignore", "-c", build]
    done = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """Runs a command of a shell in an empty folder, where the wheel is installed and the checkout
    is out of sight; the libraries are those of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    # Lines of such a file are folders; what their own .pth files say, such as where a checkout
    # lies, is not read.
    (packages / "libraries.pth").write_text("".join(f"{path}\n" for path in libraries))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (folder / "elsewhere").mkdir()
    hidden = ("PYTHONPATH", "JAX_COMPILATION_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    one_device = re.sub(
        r"--xla_force_host_platform_device_count=\d+ *", "", os.environ["XLA_FLAGS"]
    )
    environment["XLA_FLAGS"] = one_device
    environment["PATH"] = f"{python.parent}:{environment['PATH']}"

    def run(command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=folder / "elsewhere",
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    place = run("python -c 'import flax_transformer; print(flax_transformer.__file__)'").stdout
    assert Path(place.strip()).is_relative_to(packages)
    return run


def test_wheel_holds_all_that_is_needed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        described = archive.read(metadata).decode()
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "flax_transformer").rglob("*")
        if path.suffix in (".py", ".html", ".css", ".js")
        or path.name == "py.typed"
        or (path.is_file() and path.parents[1].name == "shipped_models")
    }
    configs = {f"flax_transformer/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert names == package | configs
    assert f"\nVersion: {flax_transformer.__version__}\n" in described


def test_translates_with_the_model_that_comes_with_it(installed):
    translated = installed(
        "echo 'Where is the station?' | flax-transformer translate --model en-fr-small"
    )
    assert translated.returncode == 0, translated.stderr
    assert "gare" in translated.stdout and translated.stdout.count("\n") == 1


def test_trains_and_translates_in_any_folder(installed):
    """The quick start, made small; what it says to type next can be typed."""
    flags = " ".join(f"--{name}={value}" for name, value in SMALL.items())
    trained = installed(f"flax-transformer train --config quickstart {flags}")
    assert trained.returncode == 0, trained.stderr
    (following,) = re.findall(r'^  echo "\.\.\." \| (.*)$', trained.stdout, re.MULTILINE)
    assert following == "flax-transformer translate --workdir runs/quickstart"
    translated = installed(f"printf 'The cat sleeps.\\nA dog.\\n' | {following}")
    assert translated.returncode == 0, translated.stderr
    assert translated.stdout.count("\n") == 2
    python = (
        "import flax_transformer as ft; print(ft.load('runs/quickstart').translate(['A dog.'])); "
        "import sys; assert 'matplotlib' not in sys.modules, 'loaded without a picture'"
    )
    loaded = installed(f'python -c "{python}"')
    assert loaded.stdout == f"{[translated.stdout.splitlines()[1]]}\n", loaded.stderr
    evaluated = installed("flax-transformer evaluate --workdir runs/quickstart --split test")
    assert evaluated.returncode == 0, evaluated.stderr
    score = installed("cat runs/quickstart/evaluation/test.json").stdout
    assert {"bleu", "chrf", "ter"} <= json.loads(score).keys()


def test_says_what_it_can_do(installed):
    shown = installed("flax-transformer --help")
    assert shown.returncode == 0 and not shown.stderr
    for name in main.COMMANDS:
        assert re.search(rf"^  {name} +[A-Z]", shown.stdout, re.MULTILINE)
        usage = installed(f"flax-transformer {name} --help").stdout
        assert usage.startswith(f"usage: flax-transformer {name} [")
    assert "quickstart, tatoeba_en_fr, " in shown.stdout
    version = f"flax-transformer {flax_transformer.__version__}\n"
    assert installed("flax-transformer --version").stdout == version


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "flax-transformer needs a command: train, evaluate, translate"),
        ("trnaslate --workdir x", "'trnaslate' is no command .* nearest is 'translate'; there is"),
        ("train --config quickstrat", "quickstrat is neither a file .* europarl_en_fr, .*wmt_big"),
        ("train --config configs/wmt_base.py", "no .py file beside it, but by name: .*wmt_base"),
        ("train --config quickstart --training.setps 4", "flax-transformer train --help"),
        ("translate --workdir runs/absent", "runs/absent/config.json does not exist"),
    ],
)
def test_mistakes_end_with_one_message_and_code_2(installed, words, message):
    done = installed(f"flax-transformer {words}")
    assert done.returncode == 2 and not done.stdout
    assert re.search(message, re.sub(r"[\s│]+", " ", done.stderr))
    assert "Traceback" not in done.stderr


def test_a_file_of_ones_own_goes_before_a_shipped_config(installed):
    own = "from flax_transformer.config import *\\nconfig = Config(modl=1)"
    done = installed(f"printf '{own}' > wmt_big; flax-transformer train --config wmt_big")
    assert "error: wmt_big: TypeError" in done.stderr


def test_ctrl_c_is_silent_while_it_loads_its_modules(tmp_path):
    """As of `python train.py`; pytest itself ignores nothing, a shell's background does."""
    (tmp_path / "tyro.py").write_text("import time; print('ready', flush=True); time.sleep(240)")
    (tmp_path / "flax-transformer").write_text(PROGRAM)
    for word in ("train", "--help"):
        process = subprocess.Popen(
            [sys.executable, tmp_path / "flax-transformer", word],
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=240) == (b"", b"")
        assert process.returncode == 130


@pytest.fixture
def path_leads_here(monkeypatch):
    """As in an environment that was activated."""
    folder = Path(sys.executable).parent
    monkeypatch.setattr(invocation.shutil, "which", lambda name: str(folder / name))


@pytest.mark.parametrize(
    ("started", "program", "following"),
    [
        (["train.py", "--config", "x"], "train.py", "python translate.py"),
        (["./train.py"], "train.py", "python translate.py"),
        (["{root}/evaluate.py"], "evaluate.py", "python {root}/translate.py"),
        (["/x/flax-transformer", "train"], "flax-transformer train", "flax-transformer translate"),
        (["flax-transformer"], "flax-transformer", "flax-transformer translate"),
        (["/x/train.py"], "train.py", "flax-transformer translate"),
        (["benchmarks/decode.py"], "decode.py", "flax-transformer translate"),
        ([""], "", "python translate.py"),
    ],
)  # fmt: skip
def test_what_to_type_next_fits_how_it_was_started(
    monkeypatch, path_leads_here, started, program, following
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [word.replace("{root}", str(ROOT)) for word in started])
    assert program_name() == program
    assert how_to_start("translate") == following.replace("{root}", str(ROOT))


def test_programs_of_an_environment_that_is_not_activated_have_their_path(monkeypatch, tmp_path):
    """So that what a person is told to type works."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "flax-transformer"):
        (programs / name).touch()
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(invocation, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(invocation.shutil, "which", lambda name: f"/usr/bin/{name}")
    (tmp_path / "translate.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert how_to_start("translate") == ".venv/bin/python translate.py"
    assert how_to_start("inspect") == ".venv/bin/flax-transformer inspect"
    monkeypatch.chdir("/usr")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "train.py")])
    assert how_to_start("translate") == f"{programs}/python {tmp_path}/translate.py"


def test_scripts_of_others_are_not_taken_for_ours(monkeypatch, tmp_path, path_leads_here):
    """Neither those of the same names, nor what lies beside an installed package, as Jupyter's."""
    (tmp_path / "translate.py").touch()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "train.py")])
    assert how_to_start("translate") == "flax-transformer translate"
    monkeypatch.setattr(invocation, "_CHECKOUT", tmp_path)
    assert how_to_start("translate") == f"python {tmp_path}/translate.py"
    assert how_to_start("evaluate") == "flax-transformer evaluate"


def test_a_name_of_a_config_is_as_good_as_its_path():
    command = "{} train.py --config {} --training.steps 0"
    for config in ("wmt_base", "configs/wmt_base.py"):
        words = command.format(sys.executable, config).split()
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2 and "training.steps is 0" in done.stderr
        assert "train.py --help" in done.stderr


def test_every_python_that_is_named_is_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {
        line.rpartition(" :: ")[2] for line in project["classifiers"] if "Python :: 3." in line
    }
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert set(workflow["jobs"]["check"]["strategy"]["matrix"]["python"]) == named
    assert project["requires-python"] == f">={min(named, key=lambda each: int(each[2:]))}"


def test_citation_names_the_software_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["authors"] and citation["message"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["title"] == project["name"]
    assert citation["license"] == project["license"]
    (paper,) = citation["references"]
    assert paper["title"] == "Attention Is All You Need" and len(paper["authors"]) == 8

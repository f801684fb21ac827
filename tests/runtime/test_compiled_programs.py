"""Compiled programs come from a folder of this user alone, and whole."""

import json
import os
import stat
import subprocess
import sys
import tempfile
import warnings
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from flax_transformer.commands import command_line
from flax_transformer.files import cache_directory
from flax_transformer.runtime import compiled_programs
from flax_transformer.runtime.compiled_programs import check_entries, keep_compiled_programs

ROOT = Path(__file__).parents[2]
OTHER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")

COMPILE = """
import sys
from flax_transformer.runtime.compiled_programs import keep_compiled_programs
keep_compiled_programs()
import jax
from jax import monitoring
monitoring.register_event_listener(lambda name, **_: name.endswith("cache_hits") and print("hit"))
print(jax.jit(lambda x: 2 * x)(3), jax.jit(lambda x: x - 5)(3.0))
"""


def zlib_entry(size=1000, seed=0) -> bytes:
    return zlib.compress(np.random.default_rng(seed).bytes(size))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The folder as an earlier command left it, with two listed entries."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "")  # so that what is set below is gone after the test
        monkeypatch.delenv(name)
    monkeypatch.setattr(compiled_programs.atexit, "register", lambda *arguments: None)
    cache_directory.say_once.cache_clear()
    keep_compiled_programs()
    folder = tmp_path / "home" / "flax_transformer" / "compiled"
    for seed, name in enumerate(("first-cache", "second-cache")):
        (folder / name).write_bytes(zlib_entry(seed=seed))
    check_entries(folder)
    return folder


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.endswith("-cache")}


def start(monkeypatch) -> str | None:
    """The folder that JAX is told of by a new command."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    keep_compiled_programs()
    return os.environ.get("JAX_COMPILATION_CACHE_DIR")


def overwrite(path: Path, content: bytes) -> None:
    """Without a trace in size and time, where the size is the same."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_the_folder_is_private_and_its_entries_stay(cache, monkeypatch):
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    for _ in range(2):
        assert start(monkeypatch) == str(cache)
        assert entries(cache) == {"first-cache", "second-cache"}


@pytest.mark.parametrize("listed", [True, False])
def test_damaged_entries_are_removed(cache, monkeypatch, listed):
    whole = (cache / "first-cache").read_bytes()
    bits = np.random.default_rng(0).choice(8 * len(whole), 50)
    damages = [b"", whole[:-1], whole[:100], b"\0" * len(whole)]
    for damage in damages + [flipped(whole, bit) for bit in bits]:
        (cache / "first-cache").write_bytes(whole)
        (cache / "checksums.json").unlink()
        check_entries(cache)
        assert "first-cache" in entries(cache)
        if not listed:  # as where a run was killed
            (cache / "checksums.json").unlink()
        overwrite(cache / "first-cache", damage)
        assert start(monkeypatch) == str(cache)
        if "first-cache" in entries(cache):  # the bit is one that zlib leaves unused
            assert not listed and zlib.decompress(damage) == zlib.decompress(whole)
    assert "second-cache" in entries(cache)


def test_damage_is_seen_that_unpacks(cache, monkeypatch):
    """As of a format without a checksum of its own."""
    overwrite(cache / "first-cache", zlib_entry(seed=7))
    start(monkeypatch)
    assert entries(cache) == {"second-cache"}


def test_zstandard_is_unpacked(cache):
    try:
        from compression.zstd import compress
    except ImportError:
        compress = pytest.importorskip("zstandard").compress
    content = compress(b"program " * 1000 + np.random.default_rng(0).bytes(1000))
    (cache / "third-cache").write_bytes(content)
    (cache / "fourth-cache").write_bytes(content[:-5])
    check_entries(cache)
    assert entries(cache) == {"first-cache", "second-cache", "third-cache"}


def test_old_entries_are_read_again_only_where_touched(cache, monkeypatch):
    """A folder of gigabytes must not delay a start."""
    os.utime(cache / "second-cache", ns=(0, 0))
    check_entries(cache)
    overwrite(cache / "second-cache", flipped(zlib_entry(seed=1), 99))
    checksum = zlib.crc32
    read: list[int] = []
    monkeypatch.setattr(
        compiled_programs.zlib, "crc32", lambda content: read.append(1) or checksum(content)
    )
    check_entries(cache, read_bytes=len(zlib_entry()))
    assert len(read) == 1 and "second-cache" in entries(cache)
    os.utime(cache / "second-cache", ns=(1, 1))
    check_entries(cache, read_bytes=len(zlib_entry()))
    assert entries(cache) == {"first-cache"}


def test_the_oldest_make_room(cache, monkeypatch):
    os.utime(cache / "first-cache", ns=(0, 0))
    monkeypatch.setattr(compiled_programs, "_KEPT_BYTES", len(zlib_entry()) + 10)
    start(monkeypatch)
    assert entries(cache) == {"second-cache"}
    (cache / "notes").write_text("kept")
    monkeypatch.setattr(compiled_programs, "_KEPT_BYTES", 0)
    start(monkeypatch)
    assert entries(cache) == set() and (cache / "notes").exists()


def test_links_and_pipes_are_removed_unopened(cache, monkeypatch, tmp_path):
    (tmp_path / "precious").write_bytes(zlib_entry())
    (cache / "link-cache").symlink_to(tmp_path / "precious")
    (cache / "nowhere-cache").symlink_to(tmp_path / "absent")
    os.mkfifo(cache / "pipe-cache")
    (cache / "checksums.json").unlink()
    os.mkfifo(cache / "checksums.json")
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning" / "empty").touch()
    (cache / "xla_gpu_per_fusion_autotune_cache_dir").symlink_to(tmp_path / "tuning")
    assert start(monkeypatch) == str(cache)
    assert entries(cache) == {"first-cache", "second-cache"}
    assert (tmp_path / "precious").read_bytes() == zlib_entry()
    assert (tmp_path / "tuning" / "empty").exists()


def test_damaged_tuning_is_removed(cache, monkeypatch):
    """XLA refuses to compile where it cannot read what it found to be fastest."""
    tuning = cache / "xla_gpu_per_fusion_autotune_cache_dir"
    (tuning / "tmp").mkdir(parents=True)
    for name, content in {"good": b"version: 3", "empty": b"", "zeros": b"\0" * 9}.items():
        (tuning / name).write_bytes(content)
    start(monkeypatch)
    assert {path.name for path in tuning.iterdir()} == {"good", "tmp"}
    overwrite(tuning / "good", b"version: 7")
    start(monkeypatch)
    assert {path.name for path in tuning.iterdir()} == {"tmp"}


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"7", b'{"first-cache": 3}', b'{"a": [1]}']
)
def test_a_damaged_list_is_made_anew(cache, monkeypatch, content):
    (cache / "checksums.json").write_bytes(content)
    assert start(monkeypatch) == str(cache)
    assert entries(cache) == {"first-cache", "second-cache"}
    assert set(json.loads((cache / "checksums.json").read_text())) == entries(cache)


def test_a_full_disk_keeps_what_is_there(cache, monkeypatch):
    def fill(descriptor):
        raise OSError(28, "No space left on device")

    (cache / "third-cache").write_bytes(zlib_entry())
    monkeypatch.setattr(os, "fsync", fill)
    assert start(monkeypatch) == str(cache)
    assert len(entries(cache)) == 3


def test_a_full_disk_is_told_once(cache, monkeypatch, capsys):
    def fill(**options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", fill)
    assert start(monkeypatch) == str(cache)
    (line,) = capsys.readouterr().err.splitlines()
    assert "programs compiled now are not kept" in line and "No space left on device" in line
    # What JAX says of each program that it cannot write.
    warnings.warn("Error writing persistent compilation cache entry for 'jit_f': no", stacklevel=1)


def assert_refused(monkeypatch, capsys, *words: object) -> None:
    """Nothing is kept, and one line says why and what to do."""
    assert start(monkeypatch) is None
    start(monkeypatch)
    (line,) = capsys.readouterr().err.splitlines()
    for word in ("compiled programs are not kept", "XDG_CACHE_HOME", *words):
        assert str(word) in line


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_not_used(cache, monkeypatch, capsys, mode):
    cache.chmod(mode)
    assert_refused(
        monkeypatch, capsys, f"{cache} can be written to by other users", f"rm -r {cache}"
    )


def test_a_folder_that_others_can_exchange_is_not_used(cache, monkeypatch, capsys):
    above = cache.parent.parent
    above.chmod(0o777)
    assert_refused(monkeypatch, capsys, f"{above} can be written to", f"chmod go-w {above}")
    above.chmod(0o1777)  # as /tmp: only its owner can
    assert start(monkeypatch) == str(cache)


@as_root
def test_a_folder_of_another_user_is_not_used(cache, monkeypatch, capsys):
    os.chown(cache, OTHER, OTHER)
    assert_refused(monkeypatch, capsys, f"{cache} belongs to user {OTHER}")


@as_root
def test_a_folder_in_that_of_another_user_is_neither_used_nor_made(cache, monkeypatch, capsys):
    theirs = cache.parent.parent
    os.chown(theirs, OTHER, OTHER)
    assert_refused(monkeypatch, capsys, f"{theirs} belongs to user {OTHER}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(theirs / "new"))
    start(monkeypatch)
    assert not (theirs / "new").exists()


@as_root
def test_an_entry_of_another_user_is_removed(cache, monkeypatch):
    os.chown(cache / "first-cache", OTHER, OTHER)
    assert start(monkeypatch) == str(cache)
    assert entries(cache) == {"second-cache"}


def test_a_folder_that_others_could_read_is_closed(cache, monkeypatch):
    """As commands before left it; what others could write to in it is not trusted."""
    cache.chmod(0o755)
    (cache / "first-cache").chmod(0o664)
    assert start(monkeypatch) == str(cache)
    assert entries(cache) == {"second-cache"}
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    (cache / "second-cache").chmod(0o664)  # as JAX writes them under some umasks
    start(monkeypatch)
    assert entries(cache) == {"second-cache"}


def test_a_link_is_no_folder_but_may_lead_to_it(cache, monkeypatch, capsys, tmp_path):
    (tmp_path / "link").symlink_to(cache.parent.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "link"))
    assert start(monkeypatch) == str(cache)
    cache.rename(tmp_path / "elsewhere")
    cache.symlink_to(tmp_path / "elsewhere")
    assert_refused(monkeypatch, capsys, f"{cache} is a link")
    assert entries(tmp_path / "elsewhere") == {"first-cache", "second-cache"}


def test_without_a_place_nothing_is_kept(cache, monkeypatch, capsys):
    (cache.parent.parent / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent.parent / "file"))
    assert_refused(monkeypatch, capsys, "file is no folder")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(compiled_programs, "default_cache_directory", lambda: None)
    assert_refused(monkeypatch, capsys, "no home directory")


def test_a_folder_that_cannot_be_written_is_not_used(cache, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # for root all can be
    assert_refused(monkeypatch, capsys, cache, "Read-only")


def test_a_folder_that_the_user_names_is_his_affair(cache, monkeypatch, capsys, tmp_path):
    cache.chmod(0o777)
    (cache / "first-cache").write_bytes(b"")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    keep_compiled_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "own")
    assert entries(cache) == {"first-cache", "second-cache"} and not capsys.readouterr().err
    # A command inside a command has the folder from that, not from the user.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
    keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@pytest.mark.parametrize(("words", "expected"), [(["--help"], 0), (["--workdir", "run"], 1)])
def test_help_reads_no_programs(monkeypatch, words, expected):
    """It is to answer at once."""
    looked: list[int] = []
    monkeypatch.setattr(command_line, "keep_compiled_programs", lambda: looked.append(1))
    monkeypatch.setattr(command_line, "keep_freed_memory", lambda: None)
    # A command's handlers of signals stay, for it is about to end, as this process is not.
    monkeypatch.setattr(command_line, "StopSignals", nullcontext)
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    command_line.run_command(lambda words: None)
    assert len(looked) == expected


def test_programs_of_jax_are_found_again_and_damaged_ones_made_anew(tmp_path):
    def run() -> int:
        """How many programs were found."""
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        words = [sys.executable, "-W", "error", "-c", COMPILE]
        result = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert result.returncode == 0 and not result.stderr, result.stderr
        return result.stdout.count("hit")

    assert run() == 0
    folder = tmp_path / "flax_transformer" / "compiled"
    first, second, *others = sorted(folder.glob("*-cache"))
    whole = entries(folder)
    # Listed at the end, so that damage can be told from what was compiled.
    assert set(json.loads((folder / "checksums.json").read_text())) == whole
    first.write_bytes(b"")
    overwrite(second, flipped(second.read_bytes(), 4000))
    assert run() == len(others)
    assert entries(folder) == whole and first.stat().st_size > 0

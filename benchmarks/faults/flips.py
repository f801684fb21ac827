"""Single flipped bits in what a run keeps: each must be seen before it is used."""

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.faults.runs import Whole
from flax_transformer.checkpoints.files import (
    CHECKSUMS,
    DamagedCheckpointError,
    check_whole,
    list_steps,
)
from flax_transformer.config.json import load_config
from flax_transformer.data.corpus import open_corpus
from flax_transformer.data.token_cache import TokenizedPairs, tokenize_pairs
from flax_transformer.errors import UserError
from flax_transformer.runtime.compiled_programs import check_entries
from flax_transformer.text.vocabulary_file import load_tokenizer


class Place(NamedTuple):
    """Files, and a function that tells whether damage in one of them is seen."""

    files: list[Path]
    sees: Callable[[Path], bool]
    restored: Callable[[], None] = lambda: None


def flip_bits(run: Whole, flips: int, seed: int) -> dict[str, dict[str, int]]:
    """Flips one bit at a time, in turn in the newest checkpoint, the vocabulary, the cached tokens
    and the compiled programs; counts how many of each were seen, and how many not."""
    draw = random.Random(seed)
    places = {
        "checkpoint": _checkpoint(run.workdir),
        "vocabulary": _vocabulary(run.workdir),
        "tokens": _tokens(run.workdir, run.cache),
        "compiled programs": _programs(run.cache),
    }
    found: dict[str, Counter] = {name: Counter() for name in places}
    for number in range(flips):
        name = list(places)[number % len(places)]
        place = places[name]
        path = draw.choice(place.files)
        content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
        bit = draw.randrange(8 * len(content))
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        os.utime(path, ns=times)  # a disk's damage leaves no time
        try:
            found[name]["seen" if place.sees(path) else "silent"] += 1
        except Exception as error:  # what a user would get as a traceback
            found[name][f"traceback ({type(error).__name__})"] += 1
        path.write_bytes(content)
        os.utime(path, ns=times)
        place.restored()
    return {name: dict(counts) for name, counts in found.items()}


def _checkpoint(workdir: Path) -> Place:
    directory = workdir / "checkpoints"
    checkpoint = directory / str(list_steps(directory)[-1])
    items = ("params", "optimizer", "progress")
    files = [path for item in items for path in (checkpoint / item).rglob("*") if path.is_file()]

    def sees(path: Path) -> bool:
        try:
            check_whole(checkpoint, items)
        except DamagedCheckpointError:
            return True
        return False

    return Place([*sorted(files), checkpoint / CHECKSUMS], sees)


def _vocabulary(workdir: Path) -> Place:
    path = workdir / "tokenizer.model"
    fingerprint = load_tokenizer(path).fingerprint  # which every checkpoint holds

    def sees(path: Path) -> bool:
        try:
            return load_tokenizer(path).fingerprint != fingerprint
        except UserError:
            return True

    return Place([path], sees)


def _tokens(workdir: Path, cache: Path) -> Place:
    corpus = open_corpus(load_config(workdir / "config.json").data)
    tokenizer = load_tokenizer(workdir / "tokenizer.model")
    directory = cache / "flax_transformer"

    def read() -> TokenizedPairs:
        split = corpus.validation
        fingerprint = corpus.fingerprint(split)
        return tokenize_pairs(corpus.split(split), tokenizer, fingerprint, directory, "")

    before = {path: path.stat().st_ino for path in directory.glob("*.tokens")}
    expected = read()
    # Of several splits' files the one that this reads is the one that it makes anew.
    files = []
    for path in before:
        content = path.read_bytes()
        path.unlink()
        read()
        if path.exists():
            files.append(path)
        path.write_bytes(content)

    def sees(path: Path) -> bool:
        tokens = read()
        return all(
            np.array_equal(getattr(a, part), getattr(b, part))
            for a, b in ((tokens.source, expected.source), (tokens.target, expected.target))
            for part in ("values", "offsets")
        )

    return Place(files, sees)


def _programs(cache: Path) -> Place:
    directory = cache / "flax_transformer" / "compiled"
    check_entries(directory)

    def sees(path: Path) -> bool:
        check_entries(directory)
        return not path.exists()

    def restored() -> None:
        check_entries(directory)

    return Place(sorted(directory.glob("*-cache")), sees, restored)


def totals(found: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Counts the flips in all, and those that were not seen."""
    every = [(kind, count) for counts in found.values() for kind, count in counts.items()]
    return {
        "flips": sum(count for _, count in every),
        "not seen": sum(count for kind, count in every if kind != "seen"),
    }

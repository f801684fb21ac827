"""A trained model as a service: loaded and warmed up in its own thread, then asked by requests."""

import asyncio
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any

import numpy as np

from flax_transformer.api.model import Model, rate
from flax_transformer.evaluation.evaluation import settle_bleu_tokenizer
from flax_transformer.inspection.sentence import describe_sentence
from flax_transformer.serving.batching import Batcher
from flax_transformer.serving.limits import Limits
from flax_transformer.serving.metrics import Metrics
from flax_transformer.serving.refusals import RefusedError
from flax_transformer.serving.schemas import Operation, operations
from flax_transformer.serving.warm_up import longest_to_attend, programs
from flax_transformer.translation.hypotheses import Hypothesis, count_untranslated
from flax_transformer.translation.prefixes import cut_to_begin
from flax_transformer.translation.search import describe_untranslated

_COMPILERS = 8
"""Most programs that are compiled at a time: the compiler works on one with one core, mostly."""

RETRY_SECONDS = "5"
"""After which a client that has come too early is told to ask again."""


class Watcher:
    """Is told how far a service is; this one does not care."""

    def loaded(self, model: Model, programs: int) -> None:
        """The model is there, and so many programs are to be compiled."""

    def compiled_one(self) -> None:
        """Another program is compiled."""

    def warm(self) -> None:
        """Requests are answered from now on."""


class Service:
    """Answers what `operations` lists.

    operations: by path
    beam_sizes: that requests may ask for, the usual one first
    limits:     what a request may ask for
    metrics:    what has been done
    batcher:    through which lines go to the model
    """

    def __init__(
        self,
        load: Callable[[], Model],
        limits: Limits,
        beam_sizes: Sequence[int],
        *,
        most_lines: int = 64,
        wait_seconds: float = 0.005,
        watcher: Watcher | None = None,
    ):
        """Makes a service that has no model yet.

        load:         returns the model; called in the thread that will own it
        most_lines:   of a batch
        wait_seconds: for which an idle model waits for more lines
        watcher:      is told how far it is
        """
        self._load, self._watcher = load, watcher or Watcher()
        self._model: Model | None = None
        self.limits, self.beam_sizes = limits, tuple(beam_sizes)
        self.operations: dict[str, Operation] = operations(limits, self.beam_sizes)
        self.metrics = Metrics(self.operations)
        self.batcher = Batcher(limits, self.metrics, most_lines, wait_seconds)
        self.compiled, self.programs = 0, 0
        self.is_warm = False

    @property
    def model(self) -> Model:
        """The model; raises `RefusedError` (503) as long as it is not warm."""
        if self._model is None or not self.is_warm:
            programs = f"{self.compiled} of {self.programs} programs are compiled"
            so_far = programs if self.programs else "it is being loaded"
            message = f"the model is not ready yet, {so_far}: try again in {RETRY_SECONDS} s"
            raise RefusedError(503, message, {"Retry-After": RETRY_SECONDS})
        return self._model

    async def run(self) -> None:
        """Loads the model, compiles all that requests may need, and answers until cancelled.

        Raises whatever loading raises, such as `UserError`.
        """
        self._model = await self.batcher.in_thread(self.prepare)
        self.is_warm = True
        self._watcher.warm()
        await self.batcher.run(self._model)

    def prepare(self) -> Model:
        """Returns the model, with all that requests may need compiled."""
        model = self._load()
        jobs = programs(model, self.beam_sizes, self.limits)
        self.programs = len(jobs)
        self._watcher.loaded(model, self.programs)
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _COMPILERS)) as compilers:
            for done in as_completed([compilers.submit(job) for job in jobs]):
                done.result()  # raises what the job has raised
                self.compiled += 1
                self._watcher.compiled_one()
        return model

    def health(self) -> dict[str, Any]:
        status = "ready" if self.is_warm else "warming up"
        return {"status": status, "programs": self.programs, "compiled": self.compiled}

    async def translate(self, values: dict[str, Any]) -> dict[str, Any]:
        lines, prefixes = values["lines"], values.get("prefixes")
        n_best, beam_size = values.get("n_best", 1), values.get("beam_size", self.beam_sizes[0])
        if prefixes is not None and len(prefixes) != len(lines):
            counts = f"there are {len(lines)} lines and {len(prefixes)} prefixes"
            raise RefusedError(422, f"{counts}: give one for each line, or none at all")
        if n_best > beam_size:
            message = f"n_best is {n_best}, but must be at most beam_size, {beam_size}"
            raise RefusedError(422, f"{message}: ask for fewer")
        if prefixes is not None:
            cut_to_begin(lines, prefixes, self.model.config, self.model.tokenizer)  # or refuses
        found = await self._search(lines, prefixes, beam_size)
        if n_best == 1:
            return {"translations": [best.text for best, *_ in found]} | self._note(found)
        translations = [list(map(_as_json, each[:n_best])) for each in found]
        return {"translations": translations} | self._note(found)

    async def score(self, values: dict[str, Any]) -> dict[str, Any]:
        sources, references = values["sources"], values["references"]
        if len(sources) != len(references):
            counts = f"there are {len(sources)} sources and {len(references)} references"
            raise RefusedError(422, f"{counts}: give one reference for each source")
        found = await self._search(sources, None, self.beam_sizes[0])
        translations = [best.text for best, *_ in found]
        # It needs no model, so the next batch need not wait for it.
        tokenize = settle_bleu_tokenizer(self.model.config, "auto")
        score = await asyncio.to_thread(rate, translations, references, tokenize)
        return {
            "bleu": score.bleu,
            "bleu_signature": score.signature,
            "chrf": score.chrf,
            "chrf_signature": score.chrf_signature,
            "translations": translations,
        } | self._note(found)

    async def attention(self, values: dict[str, Any]) -> dict[str, Any]:
        source, target = values["source"], values.get("target")
        most = self.limits.inspected_tokens
        self._require_short("source", source, most)
        if target is None:
            ((best, *_),) = await self._search([source], None, self.beam_sizes[0])
            target, most = best.text, longest_to_attend(self.model.config, self.limits)
        self._require_short("target", target, most)
        seen = await self.batcher.call(partial(self.model.attention, source, target))
        weights = {name: getattr(seen, name) for name in ("encoder", "decoder", "cross")}
        return {name: list(getattr(seen, name)) for name in ("source", "target", "inputs")} | {
            name: None if each is None else np.round(each.astype(float), 4).tolist()
            for name, each in weights.items()
        }

    async def explore(self, values: dict[str, Any]) -> dict[str, Any]:
        source, prefix = values["source"], values.get("prefix", "")
        beam_size = values.get("beam_size", self.beam_sizes[0])
        for name, text in (("source", source), ("prefix", prefix)):
            self._require_short(name, text, self.limits.inspected_tokens)
        describe = partial(
            describe_sentence, self.model, source, prefix=prefix, beam_size=beam_size
        )
        return await self.batcher.call(describe)

    async def _search(
        self, lines: Sequence[str], prefixes: Sequence[str] | None, beam_size: int
    ) -> list[list[Hypothesis]]:
        return await self.batcher.translate([*map(_as_read, lines)], prefixes, beam_size)

    def _note(self, found: Sequence[Sequence[Hypothesis]]) -> dict[str, str]:
        """Returns what is to be said of lines that are left empty, if any."""
        if not (count := count_untranslated(found)):
            return {}
        return {"note": describe_untranslated(count, self.model.config.decoding)}

    def _require_short(self, name: str, text: str, most: int) -> None:
        tokens = len(self.model.tokenizer.encode([text])[0]) + 1
        if tokens > most:
            message = f"{name} has {tokens} tokens, but at most {most} are looked into: shorten it"
            raise RefusedError(422, message)


def _as_read(line: str) -> str:
    """The line as translate.py reads it from a file."""
    return line.removesuffix("\r").removeprefix("\ufeff")


def _as_json(hypothesis: Hypothesis) -> dict[str, Any]:
    score = hypothesis.score
    return {"text": hypothesis.text, "score": round(score, 4) if math.isfinite(score) else None}

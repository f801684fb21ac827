"""Lines of many requests through one model, with models that need no JAX."""

import asyncio
import threading
import time

import pytest

from flax_transformer.errors import UserError
from flax_transformer.serving.batching import Batcher
from flax_transformer.serving.limits import Limits
from flax_transformer.serving.metrics import Metrics
from flax_transformer.serving.refusals import RefusedError
from flax_transformer.translation.hypotheses import Hypothesis


class Echo:
    """Gives lines back, remembers its batches, and waits until it is let go."""

    def __init__(self, free: bool = True):
        self.batches: list[list[str]] = []
        self.widths: list[int] = []
        self.threads: set[int] = set()
        self.free = threading.Event()
        if free:
            self.free.set()

    def search(self, lines, *, prefixes=None, beam_size=None):
        self.batches.append(list(lines))
        self.widths.append(beam_size)
        self.threads.add(threading.get_ident())
        assert self.free.wait(10)
        if "poison" in lines:
            raise UserError("this line is poison")
        begun = prefixes or [""] * len(lines)
        return [
            [Hypothesis(f"{prefix}<{line}>", 0.0, 3)]
            for prefix, line in zip(begun, lines, strict=True)
        ]


def serve(model, asking, **options):
    """Runs `asking(batcher)` while the batcher answers with `model`."""

    async def run():
        limits = options.pop("limits", Limits())
        metrics = Metrics(["/translate"])
        batcher = Batcher(limits, metrics, options.pop("most", 8), options.pop("wait", 0.05))
        working = asyncio.ensure_future(batcher.run(model))
        try:
            return await asyncio.wait_for(asking(batcher), 20), metrics
        finally:
            model.free.set()
            working.cancel()
            batcher.close()

    return asyncio.run(run())


async def texts(batcher, lines, prefixes=None, beam_size=4) -> list[str]:
    return [best.text for best, *_ in await batcher.translate(lines, prefixes, beam_size)]


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_what_arrives_together_is_translated_together_and_not_crossed():
    model = Echo(free=False)

    async def ask(batcher):
        first = asyncio.ensure_future(texts(batcher, ["first"]))
        await until(lambda: model.batches)  # while the model works, the others arrive
        others = [asyncio.ensure_future(texts(batcher, [f"{n} a", f"{n} b"])) for n in range(6)]
        await asyncio.sleep(0)
        model.free.set()
        return await asyncio.gather(first, *others)

    answers, metrics = serve(model, ask)
    assert answers == [["<first>"], *([f"<{n} a>", f"<{n} b>"] for n in range(6))]
    assert [len(batch) for batch in model.batches] == [1, 8, 4]
    assert len(model.threads) == 1 and threading.get_ident() not in model.threads
    assert (metrics.sentences, metrics.tokens, metrics.batches.count) == (13, 39, 3)


def test_a_request_of_many_lines_does_not_hold_up_the_others():
    model = Echo(free=False)

    async def ask(batcher):
        first = asyncio.ensure_future(texts(batcher, ["first"]))
        await until(lambda: model.batches)
        many = asyncio.ensure_future(texts(batcher, [f"many {n}" for n in range(40)]))
        await asyncio.sleep(0)
        one = asyncio.ensure_future(texts(batcher, ["one"]))
        other_width = asyncio.ensure_future(texts(batcher, ["narrow"], beam_size=1))
        await asyncio.sleep(0)
        model.free.set()
        return await asyncio.gather(first, many, one, other_width)

    (_, many, one, _), _ = serve(model, ask)
    assert "one" in model.batches[1] and model.batches[2] == ["narrow"]
    assert model.widths[1:4] == [4, 1, 4]
    assert one == ["<one>"] and many == [f"<many {n}>" for n in range(40)]


def test_several_clients_are_waited_for_but_a_single_one_is_not():
    async def ask(batcher):
        start = time.perf_counter()
        await texts(batcher, ["alone"])
        alone = time.perf_counter() - start

        async def later(line):
            await asyncio.sleep(0.02)
            return await texts(batcher, [line])

        await asyncio.gather(texts(batcher, ["a"]), texts(batcher, ["b"]))
        await asyncio.gather(texts(batcher, ["a"]), later("b"))
        return alone

    model = Echo()
    alone, _ = serve(model, ask, wait=0.5)
    assert alone < 0.3
    assert model.batches == [["alone"], ["a", "b"], ["a", "b"]]


def test_long_lines_count_as_several():
    model = Echo()
    serve(model, lambda batcher: texts(batcher, ["x" * 1000] * 4))
    assert [len(batch) for batch in model.batches] == [2, 2]


def test_a_line_that_fails_does_not_take_the_others_along(capsys):
    model = Echo(free=False)

    async def ask(batcher):
        first = asyncio.ensure_future(texts(batcher, ["first"]))
        await until(lambda: model.batches)
        asked = [asyncio.ensure_future(texts(batcher, each)) for each in (["a"], ["poison"], ["b"])]
        await asyncio.sleep(0)
        model.free.set()
        return await asyncio.gather(first, *asked, return_exceptions=True)

    (_, a, error, b), _ = serve(model, ask)
    assert (a, b) == (["<a>"], ["<b>"])
    assert isinstance(error, UserError)


def test_prefixes_go_with_their_lines():
    async def ask(batcher):
        begun = texts(batcher, ["a", "b"], ["", "le "])
        return await asyncio.gather(begun, texts(batcher, ["free"]))

    model = Echo()
    assert serve(model, ask)[0] == [["<a>", "le <b>"], ["<free>"]]
    assert model.batches == [["a", "b"], ["free"]]


def test_too_many_waiting_lines_are_refused_with_a_time_to_come_back():
    model = Echo(free=False)

    async def ask(batcher):
        first = asyncio.ensure_future(texts(batcher, ["first"]))
        await until(lambda: model.batches)
        waiting = asyncio.ensure_future(texts(batcher, ["a"] * 9))
        await asyncio.sleep(0)
        assert batcher.waiting_lines == 9
        with pytest.raises(RefusedError, match="9 lines wait, and at most 10 may") as caught:
            await texts(batcher, ["b", "c"])
        model.free.set()
        await asyncio.gather(first, waiting)
        return caught.value

    refused, _ = serve(model, ask, limits=Limits(waiting_lines=10))
    assert refused.status == 429 and int(refused.headers["Retry-After"]) >= 1


def test_lines_that_nobody_waits_for_are_not_translated():
    model = Echo(free=False)

    async def ask(batcher):
        first = asyncio.ensure_future(texts(batcher, ["first"]))
        await until(lambda: model.batches)
        gone = asyncio.ensure_future(texts(batcher, ["gone"]))
        called = []
        call = asyncio.ensure_future(batcher.call(lambda: called.append("called")))
        last = asyncio.ensure_future(texts(batcher, ["last"]))
        await asyncio.sleep(0)
        gone.cancel(), call.cancel()
        await asyncio.sleep(0)
        model.free.set()
        await asyncio.gather(first, last)
        return called

    called, _ = serve(model, ask)
    assert model.batches == [["first"], ["last"]] and called == []


def test_calls_take_their_turn_in_the_thread_of_the_model():
    model = Echo()

    async def ask(batcher):
        thread, answer = await asyncio.gather(
            batcher.call(threading.get_ident), texts(batcher, ["a"])
        )
        with pytest.raises(ZeroDivisionError):
            await batcher.call(lambda: 1 / 0)
        return thread, answer

    (thread, answer), _ = serve(model, ask)
    assert {thread} == model.threads and answer == ["<a>"]

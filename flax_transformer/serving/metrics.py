"""What the server has done, in the text format of Prometheus (version 0.0.4)."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SENTENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_PREFIX = "flax_transformer"


class Histogram:
    """How many values were at most each of some bounds."""

    def __init__(self, bounds: Sequence[float]):
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    @property
    def count(self) -> int:
        return sum(self._counts)

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def quantile(self, share: float) -> float:
        """Returns the bound that a `share` of the values does not exceed; inf beyond the last."""
        seen, count = 0, self.count
        for bound, here in zip((*self._bounds, float("inf")), self._counts, strict=True):
            seen += here
            if seen >= share * count:
                return bound
        return float("inf")

    def lines(self, name: str, labels: str = "") -> Iterable[str]:
        seen = 0
        separator = "," if labels else ""
        for bound, here in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            seen += here
            yield f'{name}_bucket{{{labels}{separator}le="{bound}"}} {seen}'
        braces = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{braces} {self.sum:.6f}"
        yield f"{name}_count{braces} {seen}"


class Metrics:
    """Counts since the start; of one thread, the event loop's.

    requests:    by path and status; a path that is not known counts as "other"
    in_progress: requests whose answer is not out yet
    seconds:     from a request's head to its answer, by path
    batches:     sentences of each batch
    sentences:   translated
    tokens:      of the best translations, end symbols included
    """

    def __init__(self, paths: Iterable[str]):
        self.requests: Counter[tuple[str, int]] = Counter()
        self.in_progress = 0
        self.seconds = {path: Histogram(_SECONDS) for path in (*paths, "other")}
        self.batches = Histogram(_SENTENCES)
        self.sentences = 0
        self.tokens = 0

    def count_request(self, path: str, status: int, seconds: float) -> None:
        known = path if path in self.seconds else "other"
        self.requests[known, status] += 1
        self.seconds[known].observe(seconds)

    def count_batch(self, sentences: int, tokens: int) -> None:
        self.batches.observe(sentences)
        self.sentences += sentences
        self.tokens += tokens

    def text(self, waiting: int, warm: bool) -> str:
        """Returns all of them, with the number of lines that wait and whether the model is warm."""
        lines: list[str] = []

        def add(name: str, kind: str, help_text: str, values: Iterable[str]) -> None:
            full = f"{_PREFIX}_{name}"
            lines.extend([f"# HELP {full} {help_text}", f"# TYPE {full} {kind}", *values])

        def one(name: str, kind: str, help_text: str, value: int) -> None:
            add(name, kind, help_text, [f"{_PREFIX}_{name} {value}"])

        counted = [
            f'{_PREFIX}_requests_total{{path="{path}",status="{status}"}} {count}'
            for (path, status), count in sorted(self.requests.items())
        ]
        add("requests_total", "counter", "Requests answered.", counted)
        one("requests_in_progress", "gauge", "Requests that wait for an answer.", self.in_progress)
        one("sentences_total", "counter", "Lines translated.", self.sentences)
        one("tokens_total", "counter", "Target tokens of their translations.", self.tokens)
        one("waiting_lines", "gauge", "Lines that wait for the model.", waiting)
        one("warm", "gauge", "1 once translations can be asked for.", int(warm))
        batches = self.batches.lines(f"{_PREFIX}_batch_sentences")
        add("batch_sentences", "histogram", "Lines translated together.", batches)
        durations = [
            line
            for path, histogram in self.seconds.items()
            if histogram.count
            for line in histogram.lines(f"{_PREFIX}_request_seconds", f'path="{path}"')
        ]
        add("request_seconds", "histogram", "Seconds from head to answer.", durations)
        return "\n".join(lines) + "\n"

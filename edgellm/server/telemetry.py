"""What /metrics tells."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from edgellm.server.metrics import SECONDS, SIZES, STEP_SECONDS, Histogram, lines

if TYPE_CHECKING:
    from edgellm.scheduler import Scheduler
    from edgellm.server.gate import Record

_PATHS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
}


class Telemetry:
    """Counts of requests, and what the scheduler tells of itself."""

    def __init__(self, scheduler: Scheduler, cache: object | None = None) -> None:
        self._scheduler = scheduler
        self._cache = cache
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._prompt_tokens = self._completion_tokens = 0
        self._queue = Histogram("edgellm_queue_seconds", "From arrival to a place in the batch.", SECONDS)
        self._ttft = Histogram("edgellm_ttft_seconds", "From arrival to the first token.", SECONDS)
        self._tpot = Histogram("edgellm_tpot_seconds", "Per token after the first.", STEP_SECONDS)

    def count(self, record: Record) -> None:
        """A request has ended."""
        endpoint = _PATHS.get(record.path, "other")
        self._requests[endpoint, record.outcome, record.status] += 1
        self._prompt_tokens += record.prompt_tokens
        self._completion_tokens += record.completion_tokens
        if record.queue_s is not None:
            self._queue.observe(record.queue_s)
        if record.ttft_s is not None:
            self._ttft.observe(record.ttft_s)
        for seconds in record.tpot_s:
            self._tpot.observe(seconds)

    def text(self) -> str:
        """Everything, in Prometheus' text format."""
        stats = self._scheduler.stats()
        sizes = Histogram("edgellm_batch_size", "Texts that a step evaluated together.", SIZES)
        for size, steps in enumerate(stats.step_sizes):
            if steps:
                sizes.observe(size, steps)
        requests = [
            ({"endpoint": endpoint, "outcome": outcome, "status": str(status)}, count)
            for (endpoint, outcome, status), count in sorted(self._requests.items())
        ]
        out = lines("edgellm_requests_total", "counter", "Requests that have ended.", requests)
        cached = {name: getattr(self._cache, name, 0) for name in ("nbytes", "hits", "misses")}
        for name, kind, value, text in (
            ("waiting", "gauge", stats.waiting, "Texts that wait for a place."),
            ("running", "gauge", stats.running, "Texts that are being read or written."),
            ("session_bytes", "gauge", stats.session_bytes, "Planned memory of their sessions."),
            ("steps_total", "counter", stats.steps, "Evaluations of the model."),
            ("prompt_tokens_total", "counter", self._prompt_tokens, "Tokens of prompts of ended requests."),
            ("completion_tokens_total", "counter", self._completion_tokens, "Tokens of their answers."),
            ("read_tokens_total", "counter", stats.prompt_tokens, "Tokens of prompts that were evaluated."),
            ("generated_tokens_total", "counter", stats.generated_tokens, "Tokens, also of cancelled texts."),
            ("cached_tokens_total", "counter", stats.cached_tokens, "Tokens out of the prefix cache."),
            ("prefix_cache_bytes", "gauge", cached["nbytes"], "What the prefix cache holds."),
            ("prefix_cache_hits_total", "counter", cached["hits"], "Prompts whose beginning it had."),
            ("prefix_cache_misses_total", "counter", cached["misses"], "Prompts that were new to it."),
        ):
            out += lines(f"edgellm_{name}", kind, text, [({}, value)])
        for histogram in (self._queue, self._ttft, self._tpot, sizes):
            out += histogram.lines()
        return "\n".join(out) + "\n"

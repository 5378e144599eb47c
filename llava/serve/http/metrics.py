"""What the service counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from llava.inference.live import LiveEngine

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""The histograms' bounds."""


class Metrics:
    """The counters of one service. `registry` holds them all."""

    def __init__(self, live: LiveEngine) -> None:
        """Start at zero; the engine's state is asked for whenever somebody reads."""
        self.registry = CollectorRegistry()
        self.requests = Counter("llava_requests", "HTTP requests", ["path", "status"], registry=self.registry)
        self.answers = Counter(
            "llava_answers", "Answers by how they ended", ["reason"], registry=self.registry
        )
        self.tokens = Counter(
            "llava_tokens",
            "Tokens: prompt, those of it that were in the prefix cache, completion",
            ["kind"],
            registry=self.registry,
        )
        self.first_token = Histogram(
            "llava_first_token_seconds",
            "From a question's entry to the first piece of its answer",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.answer = Histogram(
            "llava_answer_seconds",
            "From a question's entry to the end of its answer",
            buckets=SECONDS,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(_EngineState(live))


class _EngineState(Collector):
    def __init__(self, live: LiveEngine) -> None:
        self._live = live

    def collect(self) -> list[GaugeMetricFamily]:
        """Return what the engine does at the moment."""
        state = self._live.state
        return [
            GaugeMetricFamily("llava_running", "Answers being written", value=state.running),
            GaugeMetricFamily("llava_waiting", "Questions waiting for a place", value=state.waiting),
            GaugeMetricFamily(
                "llava_prefix_cache_bytes", "Memory of kept picture prefixes", value=state.prefix_bytes
            ),
        ]

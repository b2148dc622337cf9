"""Prometheus metrics of routes, states and models; never of a study or a caller."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of the service."""

    def __init__(self) -> None:
        """Start at zero, in a separate registry."""
        self.registry = CollectorRegistry()
        of = self.registry
        self.requests = Counter("crossray_requests", "Requests answered.", ["method", "route", "status"], registry=of)
        self.seconds = Histogram(
            "crossray_request_seconds", "Time to answer a request.", ["route"], buckets=_SECONDS, registry=of
        )
        self.decoding = Histogram("crossray_decode_seconds", "Time to decode a study.", buckets=_SECONDS, registry=of)
        self.batches = Histogram(
            "crossray_batch_studies", "Studies per batch.", ["model"], buckets=(1, 2, 4, 8, 16, 32, 64), registry=of
        )
        self.writing = Histogram(
            "crossray_batch_seconds", "Time to report a batch.", ["model"], buckets=_SECONDS, registry=of
        )
        self.reported = Counter("crossray_reported", "Studies that were reported.", ["model"], registry=of)
        self.refused = Counter("crossray_refused", "Studies that were refused.", ["reason"], registry=of)
        self.in_flight = Gauge("crossray_in_flight", "Studies being uploaded or without a report.", registry=of)
        self.deaths = Gauge("crossray_decoder_replacements", "Decoding processes that were replaced.", registry=of)
        self.studies = Gauge("crossray_journal_studies", "Studies in the journal.", ["state"], registry=of)

    def batch(self, model: str, studies: int, seconds: float) -> None:
        """Count a batch."""
        self.batches.labels(model).observe(studies)
        self.writing.labels(model).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self.registry)

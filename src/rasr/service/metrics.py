"""Metrics for Prometheus: requests by route, the queue, tiles, refusals, deaths and memory."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """All that is counted, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("rasr_requests", "Requests answered", ("method", "route", "status"), registry=registry)
        self.seconds = Histogram(
            "rasr_request_seconds", "Seconds until the answer began", ("route",), buckets=BUCKETS, registry=registry
        )
        self.jobs = Gauge("rasr_jobs", "Jobs that are kept, by state", ("state",), registry=registry)
        self.ended = Counter("rasr_jobs_ended", "Jobs that came to an end, by state", ("state",), registry=registry)
        self.job_seconds = Histogram(
            "rasr_job_seconds", "Seconds of work for a job", buckets=BUCKETS, registry=registry
        )
        self.tiles = Counter("rasr_tiles", "Tiles restored", registry=registry)
        self.refusals = Counter("rasr_refusals", "What was sent and refused, by reason", ("code",), registry=registry)
        self.decoder_deaths = Counter("rasr_decoder_deaths", "Decoding processes that died", registry=registry)
        self.worker_restarts = Counter("rasr_worker_restarts", "Times the worker was started again", registry=registry)
        self.worker_ready = Gauge("rasr_worker_ready", "1 when the worker can work", registry=registry)
        self.restorers = Gauge("rasr_restorers", "Processes that can restore at the same time", registry=registry)
        self.memory = Gauge("rasr_memory_bytes", "Resident memory, by process", ("process",), registry=registry)
        self.streams = Gauge("rasr_streams", "Open event streams", registry=registry)

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self.registry)

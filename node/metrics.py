"""What a node counts for its operator's monitoring, in Prometheus' format (`metrics` setting)."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    start_http_server,
)

from node.config import parse_listen
from node.errors import NetworkError


class Metrics:
    """The counters of one node. Nothing in them names a person, a chat or a message."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.entries = Counter(
            "ivor_entries_stored", "Entries stored durably", registry=self.registry
        )
        self.forks = Counter("ivor_forks", "Fork proofs kept", registry=self.registry)
        self.connections = Gauge(
            "ivor_connections", "Open sessions by kind of peer", ["kind"], registry=self.registry
        )
        self.breaches = Counter(
            "ivor_breaches",
            "Sessions ended because the peer broke SPEC, by its kind and the error (SPEC 9)",
            ["kind", "error"],
            registry=self.registry,
        )

    @contextmanager
    def served(self, listen: str) -> Iterator[None]:
        """Serve the metrics over HTTP at host:port for the length of a block; nowhere if empty.

        Raises NetworkError if that is not to be had.
        """
        if not listen:
            yield
            return
        host, port = parse_listen(listen)
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise NetworkError(
                f"metrics cannot be served on {listen}: {error.strerror}; choose another place "
                "with the setting metrics, or --metrics"
            ) from error
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

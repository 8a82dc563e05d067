"""Metrics over HTTP, in the format that was asked for."""

from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from memlimits._bindings.allocator import at_the_limit
from memlimits.adapters import _figures  # noqa: F401 - says what is missing

from prometheus_client import REGISTRY, generate_latest  # isort: skip
from prometheus_client.openmetrics import exposition as openmetrics  # isort: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from prometheus_client.registry import Collector

_TEXT = ("text/plain", "0.0.4")
_OPEN = ("application/openmetrics-text", "1.0.0")


def application(registry: "Collector" = REGISTRY) -> "Callable[..., Iterable[bytes]]":
    """Return a WSGI application that serves a registry's metrics.

    It answers at the memory limit, too, and says 503 where the system has no memory. Formats are
    Prometheus's text 0.0.4 and OpenMetrics 1.0.0, by what the client accepts.

    Parameters
    ----------
    registry : prometheus_client.CollectorRegistry
        By default that of all metrics of the process.

    Returns
    -------
    callable
        Of the two arguments that WSGI has.

    See Also
    --------
    MemoryCollector, PoolCollector : what has something to tell.

    Examples
    --------
    >>> from prometheus_client import CollectorRegistry
    >>> from memlimits.adapters.prometheus import MemoryCollector, application
    >>> registry = CollectorRegistry()
    >>> collector = MemoryCollector(registry)
    >>> app = application(registry)
    >>> lines = b"".join(app({"REQUEST_METHOD": "GET"}, lambda status, headers: None))
    >>> b"memlimits_memory_limit_bytes" in lines
    True
    >>> from wsgiref.simple_server import make_server
    >>> make_server("", 8000, app).serve_forever()  # doctest: +SKIP
    """

    def app(environ: "dict[str, Any]", start_response: "Callable[..., Any]") -> "list[bytes]":
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _answer(start_response, "405 Method Not Allowed", ("Allow", "GET, HEAD"))
        form = chosen_format(environ.get("HTTP_ACCEPT", ""))
        if form is None:
            return _answer(start_response, "406 Not Acceptable")
        try:
            body = exposition(registry, form)
        except MemoryError:
            return _answer(start_response, "503 Service Unavailable", ("Retry-After", "10"))
        kind, version = form
        headers = [
            ("Content-Type", f"{kind}; version={version}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Vary", "Accept"),
        ]
        start_response("200 OK", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return app


def exposition(registry: "Collector", form: "tuple[str, str]" = _TEXT) -> bytes:
    """Return the metrics of a registry in a format, made where no limit is in the way."""
    body: bytes = at_the_limit(
        openmetrics.generate_latest if form == _OPEN else generate_latest, registry
    )
    return body


class _Server(ThreadingMixIn, WSGIServer):
    # One that reads slowly keeps nobody else from reading, nor the end.
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


def server_of(registry: "Collector", address: str, port: int) -> WSGIServer:
    """Return a server of a registry's metrics, which listens from now on.

    Raises
    ------
    OSError
        The address cannot be had.
    """
    return make_server(address, port, application(registry), _Server, _Handler)


def chosen_format(accept: str) -> "tuple[str, str] | None":
    """Return the format that a header ``Accept`` prefers, the text in doubt; None for neither.

    Of the ranges that a format is in the closest says how much it is wanted: 0 is not at all.
    """
    if not accept.strip():
        return _TEXT
    wanted = dict.fromkeys((_TEXT, _OPEN), (0.0, -1))
    for entry in accept.split(","):
        kind, *words = [word.strip().lower() for word in entry.split(";")]
        parameters = dict(word.split("=", 1) for word in words if "=" in word)
        for form, (_, before) in wanted.items():
            near = _nearness(form, kind, parameters.get("version"))
            if near > before:
                wanted[form] = (_quality(parameters.get("q", "1")), near)
    best = max(wanted, key=lambda form: wanted[form])
    return best if wanted[best][0] > 0 else None


def _nearness(form: "tuple[str, str]", kind: str, version: "str | None") -> int:
    """Return how closely a range describes a format; -1 where the format is not in it."""
    name, own = form
    if kind == name and (version or own) == own:
        return 3 if version else 2
    return {"*/*": 0, f"{name.partition('/')[0]}/*": 1}.get(kind, -1)


def _quality(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0


def _answer(
    start_response: "Callable[..., Any]", status: str, *headers: "tuple[str, str]"
) -> "list[bytes]":
    body = f"{status}\n".encode()
    kind = ("Content-Type", "text/plain; charset=utf-8")
    start_response(status, [*headers, kind, ("Content-Length", str(len(body)))])
    return [body]

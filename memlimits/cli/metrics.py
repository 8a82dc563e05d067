"""``memlimits metrics``: pools for Prometheus, from outside of their members."""

from memlimits.cli.errors import CommandError
from memlimits.cli.streams import put, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from prometheus_client import CollectorRegistry

_FILES = {"dashboard": "prometheus_dashboard.json", "rules": "prometheus_rules.yml"}


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the arguments of ``memlimits metrics`` to its parser."""
    parser.add_argument("names", nargs="*", metavar="POOL", help="all of this user's unless given")
    parser.add_argument(
        "--port", type=int, metavar="N", help="serve them there, instead of printing them"
    )
    parser.add_argument(
        "--address", default="127.0.0.1", help="listen there, 127.0.0.1 unless given"
    )
    parser.add_argument(
        "--by-process",
        action="store_true",
        help="series of its own for each process, with its pid: without bound over time",
    )
    files = parser.add_mutually_exclusive_group()
    files.add_argument(
        "--dashboard",
        dest="file",
        action="store_const",
        const="dashboard",
        help="print a dashboard for Grafana, as JSON",
    )
    files.add_argument(
        "--rules",
        dest="file",
        action="store_const",
        const="rules",
        help="print alerting rules for Prometheus, as YAML",
    )


def metrics(wanted: "Namespace") -> None:
    """Do what the arguments of ``memlimits metrics`` say.

    Raises
    ------
    CommandError
        It cannot be done.
    """
    if wanted.file is not None:
        from importlib.resources import files

        put((files("memlimits.adapters") / _FILES[wanted.file]).read_text("utf-8"))
        return
    try:
        from prometheus_client import CollectorRegistry

        from memlimits.adapters._exposition import exposition
        from memlimits.adapters.prometheus import PoolCollector
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise CommandError(
            "metrics need prometheus_client: pip install prometheus_client"
        ) from None
    registry = CollectorRegistry()
    try:
        PoolCollector(*wanted.names or ("*",), registry=registry, by_process=wanted.by_process)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if wanted.port is None:
        put(exposition(registry).decode())
    else:
        _serve(registry, wanted.address, wanted.port)


def _serve(registry: "CollectorRegistry", address: str, port: int) -> None:
    from memlimits.adapters._exposition import server_of

    if not 0 <= port < 1 << 16:
        raise CommandError(f"--port {port}: a port is a number from 0 to 65535, 0 for a free one")
    try:
        server = server_of(registry, address, port)
    except OSError as error:
        raise CommandError(
            f"cannot listen on {address}, port {port}: {error.strerror}; choose others by "
            "--address and --port"
        ) from None
    say(f"metrics at http://{address}:{server.server_port}/metrics")
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return

"""Metrics for Prometheus. It needs ``prometheus_client``: ``pip install prometheus_client``.

A metric is named as the attribute of `memlimits.figures.Stats` that it has, after ``memlimits_``
and before its unit: ``active`` is ``memlimits_active_bytes``.
"""

import memlimits
from memlimits import pools
from memlimits.adapters._exposition import application
from memlimits.adapters._figures import (
    COUNTERS,
    COUNTERS_OF_MEMBERS,
    COUNTERS_OF_POOL,
    GAUGES,
    OF_MEMBERS,
    OF_POOL,
    Bounded,
    Registered,
    as_text,
    families_of,
    family_of,
)
from memlimits.errors import NO_LIMIT, WHY
from memlimits.memory import budgets

from prometheus_client import REGISTRY  # isort: skip
from prometheus_client.core import (  # isort: skip
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

_MOST_COMMANDS = 50

__all__ = ["MemoryCollector", "PoolCollector", "application"]


class MemoryCollector(Registered):
    """A collector of this process's limits and counters, its budgets, and who holds memory.

    Parameters
    ----------
    registry : prometheus_client.CollectorRegistry or None
        Where it is registered; None for nowhere.
    most : int
        How many names of budgets, and how many lines of the program, get series of their own,
        over the process's life. What comes later is one series, with ``"other"`` as its name.

    Raises
    ------
    TypeError, ValueError
        `most` is no such number, or the registry has one already.

    See Also
    --------
    application : serve it.
    PoolCollector : pools of processes.
    memlimits.stats : the same figures.

    Notes
    -----
    A forked child tells its own figures. Lines of the program are told while
    `memlimits.set_holder_sampling` has them noted.

    Examples
    --------
    >>> from prometheus_client import CollectorRegistry, start_http_server
    >>> from memlimits.adapters.prometheus import MemoryCollector
    >>> collector = MemoryCollector()
    >>> server, thread = start_http_server(0, "127.0.0.1")
    >>> server.shutdown(), server.server_close()
    (None, None)
    """

    def __init__(self, registry: "CollectorRegistry | None" = REGISTRY, *, most: int = 50) -> None:
        if isinstance(most, bool) or not isinstance(most, int):
            raise TypeError(f"most must be an integer, not {most!r}")
        if most < 0:
            raise ValueError(f"most must be 0 or more, not {most}")
        self._budgets = Bounded(most)
        self._holders = Bounded(most)
        super().__init__(registry, "this process")

    def describe(self) -> "list[Metric]":
        """Return the metrics without their values."""
        families = families_of(GaugeMetricFamily, GAUGES) | families_of(
            CounterMetricFamily, COUNTERS
        )
        return [
            _info({}), _succeeded(), *families.values(), _refusals(), *_of_budgets(), *_of_holders()
        ]  # fmt: skip

    def _collected(self) -> "list[Metric]":
        found: list[Metric] = []
        success = _succeeded()
        parts: dict[str, Callable[[], list[Metric]]] = {
            "stats": _stats,
            "budgets": self._budgets_now,
            "holders": self._holders_now,
        }
        for part, metrics in parts.items():
            try:
                found += metrics()
                success.add_metric((part,), 1)
            except MemoryError:
                success.add_metric((part,), 0)
        return [*found, success]

    def _budgets_now(self) -> "list[Metric]":
        families = _of_budgets()
        found = sorted(budgets(), key=lambda one: -one["active"])
        sums = self._budgets.add_up(
            ((one["name"],), (one["active"], one["peak"], one["limit"] or 0)) for one in found
        )
        limited = {as_text(one["name"]) for one in found if one["limit"] is not None}
        for label, figures in sums.items():
            for family, figure in zip(families, figures, strict=True):
                if family is not families[-1] or label[0] in limited:
                    family.add_metric(label, figure)
        return families

    def _holders_now(self) -> "list[Metric]":
        if memlimits.get_holder_sampling() is None:
            return []
        families = _of_holders()
        sums = self._holders.add_up(
            ((one.file, str(one.line), one.function), (one.nbytes, one.blocks))
            for one in memlimits.holders(None)
        )
        for label, figures in sums.items():
            for family, figure in zip(families, figures, strict=True):
                family.add_metric(label, figure)
        return families


def _succeeded() -> "Any":
    text = "Whether this part of the metrics could be had: 0 where memory was refused for it."
    return family_of(GaugeMetricFamily, "memlimits_scrape_success", text, ("part",))


def _info(facts: "dict[str, str]") -> "Any":
    text = "The version, where memory comes from, the policy, and what the limit is on."
    return InfoMetricFamily("memlimits", text, value=facts or None)


def _refusals() -> "Any":
    text = "Allocations refused, by what refused them."
    return family_of(CounterMetricFamily, "memlimits_refusals", text, ("cause",))


def _of_budgets() -> "list[Any]":
    texts = {
        "active": "Charged to the budget.",
        "peak": "The highest charged to the budget.",
        "limit": "The budget's limit; absent where it has none.",
    }
    return list(families_of(GaugeMetricFamily, texts, "budget_", ("budget",)).values())


def _of_holders() -> "list[Any]":
    labels = ("file", "line", "function")
    texts = {"bytes": "Held of what a line allocated.", "blocks": "Blocks of these."}
    return list(families_of(GaugeMetricFamily, texts, "holder_", labels).values())


def _stats() -> "list[Metric]":
    stats = memlimits.stats()
    gauges = families_of(GaugeMetricFamily, GAUGES)
    for attribute, family in gauges.items():
        value = getattr(stats, attribute)
        if value is not None and value < NO_LIMIT:
            family.add_metric((), value)
    counters = families_of(CounterMetricFamily, COUNTERS)
    for attribute, family in counters.items():
        family.add_metric((), getattr(stats, attribute))
    refusals = _refusals()
    for cause in WHY:
        refusals.add_metric((cause,), getattr(stats, f"refusals_by_{cause}"))
    info = _info(
        {
            "version": memlimits.__version__,
            "backend": str(memlimits.device_info()["backend"]),
            "policy": str(stats.policy),
            "count": stats.memory_count,
        }
    )
    return [info, *gauges.values(), *counters.values(), refusals]


class PoolCollector(Registered):
    """A collector of what pools of processes and their members hold, also from outside.

    Parameters
    ----------
    *names : str
        The pools; ``"*"`` for all of this user's, as of each scrape. Without a name, that which
        this process is in: it may be that of all processes below ``memlimits run``, which has no
        name, and an empty label.
    registry : prometheus_client.CollectorRegistry or None
        Where it is registered; None for nowhere.
    by_process : bool
        Whether each member has series of its own, with its ``pid``, and its counters. Series come
        and go with processes then, without bound. Otherwise members of one command are summed up:
        of a program's name without its arguments. The first 50 have series of their own.

    Raises
    ------
    TypeError, ValueError
        A name is none that a pool can have, or the registry has one already.

    See Also
    --------
    application : serve it.
    MemoryCollector : this process.
    memlimits.pools.get : the same figures.

    Notes
    -----
    Counters of a pool are over all members that there were. A pool that is not there, or whose
    file cannot be read, has ``memlimits_pool_scrape_success`` 0 and nothing else.

    Examples
    --------
    >>> from prometheus_client import CollectorRegistry
    >>> from memlimits.adapters.prometheus import PoolCollector
    >>> registry = CollectorRegistry()
    >>> collector = PoolCollector("gpu0", registry=registry)
    >>> registry.get_sample_value("memlimits_pool_scrape_success", {"pool": "gpu0"})
    0
    """

    def __init__(
        self,
        *names: str,
        registry: "CollectorRegistry | None" = REGISTRY,
        by_process: bool = False,
    ) -> None:
        for name in names:
            if name != "*":
                pools.check_name(name)
        self._names = names
        self._by_process = by_process
        self._commands = Bounded(_MOST_COMMANDS)
        super().__init__(registry, "pools")

    def describe(self) -> "list[Metric]":
        """Return the metrics without their values."""
        return self._metrics([])

    def _collected(self) -> "list[Metric]":
        names = self._names
        if "*" in names:
            names = tuple(pools.names())
        if names:
            return self._metrics([(name, _read(name)) for name in names])
        path = pools.own_path()
        facts = path and _read("", path)
        return self._metrics([(facts["name"], facts)] if facts else [])

    def _metrics(self, found: "list[tuple[str, dict[str, Any] | None]]") -> "list[Metric]":
        success = family_of(
            GaugeMetricFamily,
            "memlimits_pool_scrape_success",
            "Whether the pool could be read.",
            ("pool",),
        )
        gauges = families_of(GaugeMetricFamily, OF_POOL, "pool_", ("pool",))
        counters = families_of(CounterMetricFamily, COUNTERS_OF_POOL, "pool_", ("pool",))
        members = _Members(self._commands, by_process=self._by_process)
        for name, facts in found:
            success.add_metric((name,), int(facts is not None))
            if facts is not None:
                for attribute, family in {**gauges, **counters}.items():
                    if facts[attribute] < NO_LIMIT:
                        family.add_metric((name,), facts[attribute])
                members.add(name, facts["members"])
        return [success, *gauges.values(), *counters.values(), *members.families()]


def _read(name: str, path: "str | None" = None) -> "dict[str, Any] | None":
    try:
        return pools.get(name) if path is None else pools.read(path)
    except (LookupError, MemoryError, OSError):
        return None


def _program(command: str) -> str:
    """Return the name of a program: its arguments may be anything, also what nobody is to see."""
    words = command.split() or [""]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "-c":
            return word
        if word == "-m" or word.endswith(".py"):
            return following if word == "-m" else word.rpartition("/")[2]
    return words[0].rpartition("/")[2]


class _Members:
    """The series of members of pools, one a command or one a process."""

    def __init__(self, commands: Bounded, *, by_process: bool) -> None:
        self._commands = commands
        labels = ("pool", "command", "pid") if by_process else ("pool", "command")
        self._by_process = by_process
        self._gauges = families_of(GaugeMetricFamily, OF_MEMBERS, "pool_member_", labels)
        self._counters: dict[str, Any] = {}
        if by_process:
            self._counters = families_of(
                CounterMetricFamily, COUNTERS_OF_MEMBERS, "pool_member_", labels
            )
        self._count = family_of(GaugeMetricFamily, "memlimits_pool_members", "Members.", labels)
        self._waiting = family_of(
            GaugeMetricFamily, "memlimits_pool_members_waiting", "Members that wait.", labels
        )

    def add(self, pool: str, members: "list[dict[str, Any]]") -> None:
        """Add the members of one pool."""
        kinds: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for member in members:
            program, pid = _program(member["command"]), str(member["pid"])
            who = (program, pid) if self._by_process else self._commands.label((program,))
            kinds.setdefault((pool, *who), []).append(member)
        for label, these in kinds.items():
            for attribute, family in {**self._gauges, **self._counters}.items():
                family.add_metric(label, sum(member[attribute] for member in these))
            self._count.add_metric(label, len(these))
            self._waiting.add_metric(
                label, sum(member["waiting_since"] is not None for member in these)
            )

    def families(self) -> "list[Metric]":
        """Return the metrics."""
        return [self._count, self._waiting, *self._gauges.values(), *self._counters.values()]

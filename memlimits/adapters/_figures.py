"""What the metrics are called and say, and what makes them of figures."""

from memlimits._bindings.allocator import at_the_limit
from memlimits.figures import SIZES

try:
    from prometheus_client.registry import Collector, CollectorRegistry
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "memlimits.adapters.prometheus needs prometheus_client: pip install prometheus_client",
        name="prometheus_client",
    ) from None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from prometheus_client.core import Metric

GAUGES = {
    "memory_limit": "The memory limit; absent where there is none.",
    "cache_limit": "The most that is kept for reuse; absent where there is no limit.",
    "wired_limit": "The most that is locked in RAM.",
    "idle_timeout": "Seconds without use after which idle memory may go; absent for never.",
    "footprint": "Held from the device: active, cache, slack and pending.",
    "pending": "Being asked of the device, or being returned to it.",
    "active": "In use: blocks in the program's hands.",
    "cache": "Idle, kept for reuse.",
    "slack": "Free, inside slabs and behind blocks that have others in use.",
    "peak": "The highest active since the start or the last reset.",
    "wired": "Locked in RAM.",
    "wired_requested": "Asked to be locked in RAM.",
    "unwired_requested": "Asked to be locked in RAM, and not locked.",
    "unwired_by_limit": "Not locked since the wired limit is too low.",
    "unwired_by_capacity": "Not locked since the system lets the process lock no more.",
    "purgeable": "Idle memory that the system may take.",
    "largest_idle": "The largest idle resource.",
    "resources": "Mappings or buffers held from the device.",
    "slabs": "Resources that are cut into small blocks.",
    "heaps": "Threads that have idle memory of their own.",
    "reserved": "Of the memory limit, kept for reservations and for errors.",
    "mlx_active": "MLX's memory in use.",
    "mlx_cache": "MLX's idle memory.",
    "mlx_peak": "The most that MLX had in use.",
    "mlx_tickets": "What MLX is admitted to hold.",
    "waiting": "Requests that wait for memory now.",
    "process_resident": "What the process has in RAM, governed or not.",
    "process_files": "Of that, pages of files.",
    "process_swap": "What of the process is swapped out.",
    "process_peak_resident": "The most that the process ever had in RAM.",
}
COUNTERS = {
    "hits": "Allocations served from idle memory.",
    "misses": "Allocations served by new memory of the device.",
    "steals": "Allocations served from another thread's idle memory.",
    "evictions": "Idle resources returned to the system.",
    "evicted": "Bytes of idle resources returned to the system.",
    "overruns": "Allocations past the memory limit, under the policy guideline.",
    "wires": "Resources locked in RAM.",
    "wire_failures": "Resources that could not be locked although the limit allows it.",
    "commits": "Commits of residency sets.",
    "trims": "Times that trim returned memory.",
    "trimmed": "Bytes that trim returned.",
    "pressure_trims": "Times that idle memory was returned because the system ran short.",
    "pressure_trimmed": "Bytes returned because the system ran short.",
    "decays": "Idle resources given up after the idle timeout.",
    "decayed": "Bytes given up after the idle timeout.",
    "waits": "Requests that waited for memory.",
    "waited_seconds": "Seconds that requests waited for memory, together.",
}
OF_POOL = {
    "limit": "What its members may hold together.",
    "wired_limit": "What its members may lock in RAM together.",
    "peak": "The most that its members used at once.",
}
COUNTERS_OF_POOL = {
    "refusals": "Requests refused, of all members that there were.",
    "waits": "Requests that waited, of all members that there were.",
    "overruns": "Allocations past a limit, of all members that there were.",
    "moved": "Idle bytes that members gave back for others.",
    "ended": "Members that ended.",
    "vanished": "Members that ended without leaving: killed, or by os._exit.",
}
OF_MEMBERS = {
    "used": "Used, idle memory with it.",
    "held": "Used, and drawn ahead, which others get when they need it.",
    "active": "In use: blocks in the programs' hands.",
    "cached": "Idle, kept for reuse.",
    "wired": "Locked in RAM.",
    "minimum": "What they can always have.",
    "waiting_for": "What those need that wait.",
}
COUNTERS_OF_MEMBERS = {
    "refusals": "Requests refused.",
    "waits": "Requests that waited.",
    "waited_seconds": "Seconds that requests waited, together.",
    "overruns": "Allocations past a limit.",
}
_SIZES = SIZES | {"limit", "used", "held", "cached", "minimum", "waiting_for", "moved"}
_SECONDS = {"idle_timeout"}
_REST = "other"


def _name(attribute: str, before: str = "") -> str:
    unit = "_bytes" * (attribute in _SIZES) + "_seconds" * (attribute in _SECONDS)
    return f"memlimits_{before}{attribute}{unit}"


def family_of(kind: "Any", name: str, text: str, labels: "Sequence[str]" = ()) -> "Any":
    units = [unit for unit in ("bytes", "seconds") if name.endswith(f"_{unit}")]
    return kind(name, text, labels=labels, unit="".join(units))


def families_of(
    kind: "Any", texts: "dict[str, str]", before: str = "", labels: "Sequence[str]" = ()
) -> "dict[str, Any]":
    return {
        attribute: family_of(kind, _name(attribute, before), text, labels)
        for attribute, text in texts.items()
    }


def as_text(label: str) -> str:
    """Return what can be written as UTF-8: a path, or a program's own name, may be anything."""
    return label.encode("utf-8", "backslashreplace").decode()


class Bounded:
    """The first so many labels that come keep their own series; others share one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[tuple[str, ...]] = set()

    def label(self, parts: "tuple[str, ...]") -> "tuple[str, ...]":
        """Return the label that figures of these parts have."""
        label = tuple(map(as_text, parts))
        if label not in self._known:
            if len(self._known) >= self._most:
                return (_REST, *[""] * (len(parts) - 1))
            self._known.add(label)
        return label

    def add_up(
        self, found: "Iterable[tuple[tuple[str, ...], tuple[float, ...]]]"
    ) -> "dict[tuple[str, ...], list[float]]":
        """Return the sums of figures by label."""
        sums: dict[tuple[str, ...], list[float]] = {}
        for parts, figures in found:
            held = sums.setdefault(self.label(parts), [0.0] * len(figures))
            held[:] = [sum(pair) for pair in zip(held, figures, strict=True)]
        return sums


class Registered(Collector):
    """A collector that registers itself."""

    def __init__(self, registry: "CollectorRegistry | None", what: str) -> None:
        if registry is None:
            return
        try:
            registry.register(self)
        except ValueError as error:
            raise ValueError(
                f"this registry has the metrics of {what} already: one "
                f"{type(self).__name__} is enough for a registry"
            ) from error

    def describe(self) -> "Iterable[Metric]":
        """Return the metrics without their values."""
        raise NotImplementedError

    def collect(self) -> "Iterable[Metric]":
        """Return the metrics, which are made where no limit is in the way."""
        return at_the_limit(lambda collector: collector._collected(), self)

    def _collected(self) -> "list[Metric]":
        raise NotImplementedError

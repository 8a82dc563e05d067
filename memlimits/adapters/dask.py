"""Limits for Dask's workers. It needs ``distributed``: ``pip install distributed``."""

import contextlib
import gc

import memlimits
from memlimits import _modules

import dask.utils  # type: ignore[import-not-found, import-untyped, unused-ignore]  # isort: skip
import distributed  # type: ignore[import-not-found, import-untyped, unused-ignore]  # isort: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["MemoryLimits"]

# The share, of where Dask first stops a worker: what that measures has the files of libraries, too,
# which count nowhere here.
_SHARE = 15 / 16
# Idle memory, of the share. Dask takes it for used, and spills what it can until it is gone.
_IDLE = 1 / 16


class MemoryLimits(distributed.WorkerPlugin):  # type: ignore[misc, unused-ignore]
    """A plugin that has Dask's workers refuse a task's arrays what is above their share of memory.

    Where it is registered, NumPy's arrays are governed in every worker, those that start later,
    too. A task that takes too much fails with `MemoryError`, at once; its worker lives, and the
    task is not tried on others, as it is when Dask ends a worker.

    Parameters
    ----------
    memory_limit : int or str, optional
        The share: bytes for each worker's process, or Dask's words for them (``"2 GiB"``). By
        default 15/16 of where Dask pauses the worker, which is 75 % of the worker's own
        ``memory_limit`` with Dask's settings as they come. Where Dask does not pause, of where it
        ends the worker.
    policy : {"strict", "wait", "guideline"}, optional
        What becomes of an allocation that does not fit, as for `memlimits.set_memory_policy`. By
        default what holds in the worker already, as below ``memlimits run``, but ``"strict"`` for
        ``"guideline"``. Under ``"wait"`` a task can have what Dask spills meanwhile.
    timeout : float, optional
        Seconds that a request waits under ``"wait"``.

    Raises
    ------
    TypeError, ValueError
        An argument is not as it has to be. On registering: a worker has no limit of Dask's, and
        none is given here.

    See Also
    --------
    memlimits.govern_children : limits for any Python that is started.
    memlimits.limits : for a part of a task.

    Notes
    -----
    The limit is on what the process holds, as Dask's is (`memlimits.set_memory_count`), so what
    tasks have in Python's objects counts; it is arrays that are refused. In a worker whose policy
    was not ``"guideline"`` it is on what it was. The lower of two limits holds. Workers that are
    threads of one process have one limit, the lowest of their shares. At most 1/16 of the share is
    kept for reuse: Dask takes idle memory for used. What Dask itself receives is not governed, or a
    full worker would hear of nothing any more.

    When the plugin is removed, or its worker closes, what was set before holds again.

    Examples
    --------
    >>> from memlimits.adapters.dask import MemoryLimits  # doctest: +SKIP
    >>> client = distributed.Client(n_workers=4, memory_limit="4 GiB")  # doctest: +SKIP
    >>> client.register_plugin(MemoryLimits())  # doctest: +SKIP
    """

    name = "memlimits"

    def __init__(
        self,
        *,
        memory_limit: "int | str | None" = None,
        policy: "str | None" = None,
        timeout: "float | None" = None,
    ) -> None:
        if isinstance(memory_limit, str):
            memory_limit = int(dask.utils.parse_bytes(memory_limit))
        if isinstance(memory_limit, float):
            raise TypeError(f"memory_limit must be bytes, or Dask's words, not {memory_limit}")
        if memory_limit is not None and memory_limit <= 0:
            raise ValueError(f"memory_limit must be above 0 bytes, not {memory_limit}")
        policies = {"policy": policy, "timeout": timeout}
        self._given: dict[str, Any] = {
            key: value for key, value in policies.items() if value is not None
        }
        # What is wrong is said here, and not by the workers.
        memlimits.limits(memory=memory_limit or 0, **self._given)
        self._memory_limit = memory_limit
        self._ends: dict[Any, contextlib.ExitStack] = {}

    def setup(self, worker: "Any") -> None:
        """Govern the worker's process. Called by Dask, on the thread that its messages come in."""
        share = self._memory_limit
        if share is None:
            share = _share(worker.memory_manager)
        settings: dict[str, Any] = {
            "memory": min(memlimits.get_memory_limit(), share),
            "cache": min(memlimits.get_cache_limit(), int(share * _IDLE)),
        }
        if memlimits.get_memory_policy() == "guideline":
            settings |= {"policy": "strict", "count": "process"}
        # An error is pickled before anybody looks at it: its note has to be there by itself.
        _modules.for_notes().put_on()
        with contextlib.ExitStack() as ends:
            ends.enter_context(memlimits.limits(**(settings | self._given)))
            if memlimits._numpy_is_there():
                ends.enter_context(memlimits.govern_numpy())
                spare = _modules.for_numpy().spare_thread
                spare(True)
                ends.callback(spare, False)
            self._ends[worker] = ends.pop_all()

    def transition(self, key: "Any", start: str, finish: str, **others: "Any") -> None:
        """Have what a task held that failed be there for the next one. Called by Dask."""
        # Its error and the frames that it came through hold each other. The thread that ran it
        # holds them until it is done with it, and takes this next.
        if finish == "error":
            for worker in self._ends:
                worker.executors["default"].submit(gc.collect)

    def teardown(self, worker: "Any") -> None:
        """End what `setup` began. Called by Dask."""
        if worker in self._ends:
            self._ends.pop(worker).close()


def _share(manager: "Any") -> int:
    """Return the bytes that lie below where Dask pauses a worker, or ends it."""
    if not manager.memory_limit:
        raise ValueError(
            "the worker has no memory limit of Dask's to take a share of: give "
            "MemoryLimits(memory_limit=...), or the cluster memory_limit=..."
        )
    ends = dask.config.get("distributed.worker.memory.terminate")
    return int(manager.memory_limit * (manager.memory_pause_fraction or ends or 1) * _SHARE)

"""Sides that are processes of their own: NumPy under one memory allocator each."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from timing import Timed

WORKER = Path(__file__).with_name("worker.py")


class Program:
    """A process of a file of this folder, which answers each line of JSON with another."""

    def __init__(
        self,
        path: Path,
        *words: str,
        environment: Mapping[str, str] | None = None,
        place: int | None = None,
        stderr: int | None = None,
    ):
        self._path = path
        self._process = subprocess.Popen(
            [sys.executable, str(path), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        if place is not None and hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(self._process.pid, {cores[place % len(cores)]})

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._path.name} ended: see its error above")
        return json.loads(answer)

    def close(self) -> None:
        self._process.communicate()


class Worker(Program):
    """A process that runs NumPy statements when it is told to, and says how long they took.

    Those that take turns have the same core, or all with `place` None: two can differ by half for
    a while.
    """

    def __init__(
        self,
        *,
        governs: str | None = None,
        environment: Mapping[str, str] | None = None,
        place: int | None = -1,
    ):
        words = [governs] if governs else []
        super().__init__(WORKER, *words, environment=environment, place=place)

    def side(
        self,
        source: str,
        setup: str = "pass",
        before: str = "",
        clock: str = "perf_counter_ns",
    ) -> Timed:
        """Return a statement as a side. What runs `before` it, each time, is not timed."""
        words = {"setup": setup, "source": source, "before": before, "clock": clock}

        def timed(number: int) -> float:
            return float(self.ask(number=number, **words))

        return timed

    def forget(self) -> None:
        """Drop the names of the statements so far."""
        self.ask(forget=True)

    def peak_resident(self) -> int:
        """Return the most bytes of RAM that the process has had."""
        return int(self.ask(peak=True))


@contextlib.contextmanager
def workers(
    environments: Mapping[str, Mapping[str, str]], governs: str = "numpy"
) -> Iterator[dict[str, Worker]]:
    """Start a governed worker, by `govern_numpy` or another, and plain ones by environment."""
    with contextlib.ExitStack() as stack:
        found = {"governed": Worker(governs=governs)}
        found |= {name: Worker(environment=values) for name, values in environments.items()}
        for worker in found.values():
            stack.callback(worker.close)
        yield found

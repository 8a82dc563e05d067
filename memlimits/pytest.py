"""A plugin for pytest: limits for tests, what they take, and allocations that fail in turn.

It is found by itself where memlimits is installed; ``-p memlimits.pytest`` loads it where plugins
are not. It does nothing unless an option or a marker wants it: docs/guides/testing.md.
"""

import contextlib

import pytest

import memlimits
from memlimits import testing
from memlimits.adapters import marks
from memlimits.adapters.spans import Span
from memlimits.errors import NO_LIMIT, WHY, is_refusal
from memlimits.sizes import format_exact, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from memlimits.adapters import turns

__all__: list[str] = []

_NAME = "memlimits.pytest.started"
_LIMIT = pytest.StashKey[int]()
_FAILURES = pytest.StashKey["dict[str, Any]"]()
_WRONG = pytest.StashKey[str]()
_SPAN = pytest.StashKey[Span]()
_TURNS = pytest.StashKey["list[turns.Turn]"]()
_NOTHING = contextlib.nullcontext()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("memlimits", "limits on memory, by memlimits")
    group.addoption(
        "--memory-limit",
        metavar="SIZE",
        help="what each test may take: 500MiB, 2GB, 5%%, ... (@pytest.mark.memory_limit for one)",
    )
    group.addoption(
        "--memory-peaks",
        type=int,
        metavar="N",
        help="show the N tests that took most (0 for all)",
    )
    group.addoption(
        "--memory-holders",
        metavar="SIZE",
        help="note who allocates, of each block of SIZE and more and of one in SIZE of shorter "
        "ones (1MiB), and tell it of each test",
    )


def pytest_configure(config: pytest.Config) -> None:
    for line in marks.LINES:
        config.addinivalue_line("markers", line)
    limit, holders, peaks = map(
        config.getoption, ("--memory-limit", "--memory-holders", "--memory-peaks")
    )
    if peaks is not None and peaks < 0:
        raise pytest.UsageError(f"--memory-peaks must be from 0 on, not {peaks}")
    if limit is not None:
        limit = marks.limit_of(limit, "--memory-limit")
    if holders is not None:
        holders = marks.bytes_of(holders, "--memory-holders")
    if (limit, holders, peaks) != (None, None, None):
        _start(config, limit, holders)


def pytest_collection_finish(session: pytest.Session) -> None:
    for item in session.items:
        try:
            _look_at(item)
        except pytest.UsageError as error:
            # xdist takes it for the crash of its worker: there the test fails with it.
            if not hasattr(session.config, "workerinput"):
                raise
            item.stash[_WRONG] = str(error)
            _start(session.config, None, None)


def _look_at(item: pytest.Item) -> None:
    if (mark := item.get_closest_marker(marks.LIMIT)) is not None:
        item.stash[_LIMIT] = marks.marked_limit(mark, item)
    if (mark := item.get_closest_marker(marks.FAILURES)) is not None:
        item.stash[_FAILURES] = marks.marked_failures(mark, item)
    if _LIMIT in item.stash or _FAILURES in item.stash:
        _start(item.config, None, None)


def _start(config: pytest.Config, limit: "int | None", holders: "int | None") -> None:
    if config.pluginmanager.has_plugin(_NAME):
        return
    if holders is not None:
        before = memlimits.get_holder_sampling()
        try:
            memlimits.set_holder_sampling(holders)
        except ValueError as error:
            raise pytest.UsageError(f"--memory-holders: {error}") from None
        config.add_cleanup(lambda: _sample_again(before))
    memlimits._numpy_is_there()  # imported: its arrays are governed from the first test on
    why_not = None
    try:
        memlimits.govern_python().close()
    except RuntimeError as error:
        if memlimits.device_info()["backend"] != "metal":
            raise pytest.UsageError(f"memlimits: {error}") from None
        why_not = str(error)
    config.pluginmanager.register(_Plugin(config, limit, why_not), _NAME)


def _sample_again(before: "int | None") -> None:
    memlimits.set_holder_sampling(before)


class _Plugin:
    """What is there once an option or a marker wants something."""

    def __init__(
        self, config: pytest.Config, limit: "int | None", why_not_python: "str | None"
    ) -> None:
        self.limit = limit
        self.why_not_python = why_not_python
        self.most = config.getoption("--memory-peaks")
        options = (limit, self.most, config.getoption("--memory-holders"))
        self.measures = options != (None, None, None)
        self.span: Span | None = None  # of the test that is under way
        self.taken: dict[str, dict[str, Any]] = {}  # by the name of the test
        self.outcomes: dict[str, str] = {}

    def pytest_report_header(self) -> str:
        limit = "none" if self.limit is None else format_size(self.limit)
        governed = ["NumPy"] * memlimits._numpy_is_there()
        governed += ["Python"] * (not self.why_not_python)
        governed += ["malloc"] * testing.is_governed("malloc")
        left_out = f" (not Python: {self.why_not_python})" if self.why_not_python else ""
        return f"memlimits: limit of a test: {limit}; counts {', '.join(governed)}{left_out}"

    # ---- while they run ----

    # Innermost: what pytest takes is not the test's.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> "Generator[None]":
        limit = item.stash.get(_LIMIT, self.limit)
        self.span = None
        if _WRONG in item.stash:
            pytest.fail(item.stash[_WRONG], pytrace=False)
        if limit is not None or self.measures:
            bounded = None if limit is None or limit >= NO_LIMIT else limit
            self.span = item.stash[_SPAN] = Span(bounded, python=self._counts_python(item))
        with self.span or _NOTHING:
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: "pytest.FixtureDef[Any]"
    ) -> "Generator[None, object, object]":
        if self.span is None or fixturedef.scope == "function":
            return (yield)
        with self.span.outside():
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> "Generator[None]":
        failing = item.stash.get(_FAILURES, None)
        in_turn = _NOTHING if failing is None else _failing_in_turn(item, failing)
        with in_turn, self.span or _NOTHING:
            return (yield)

    def _counts_python(self, item: pytest.Item) -> bool:
        """What Python keeps by the way would be a leak where allocations fail."""
        wanted = item.stash.get(_FAILURES, {"level": "python"})
        return not self.why_not_python and "python" in (wanted["level"] or ())

    # ---- what they took ----

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: "pytest.CallInfo[None]"
    ) -> "Generator[None, pytest.TestReport, pytest.TestReport]":
        span = item.stash.get(_SPAN, None)
        if call.when == "teardown":
            self.span = None
            return (yield)
        if span is not None:
            _set_properties(item, span)
        report = yield
        if span is not None and span.refusals:
            report.sections.append(("memory limit", _told_of(span, call, report)))
        if call.when == "call" and _TURNS in item.stash:
            found = item.stash[_TURNS]
            lines = [*map(str, found), *_left_out(found, item.stash[_FAILURES]["max"])]
            report.sections.append(("failing allocations", "\n".join(lines)))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of every process of xdist's, in the one that shows them."""
        if report.when == "teardown":
            found = {name: value for name, value in report.user_properties if _is_ours(name)}
            if found:
                self.taken[report.nodeid] = found
        elif report.when == "call":
            self.outcomes[report.nodeid] = report.outcome

    def pytest_terminal_summary(self, terminalreporter: "pytest.TerminalReporter") -> None:
        if self.most is not None:
            _show_peaks(terminalreporter, self.taken, self.most)
        for nodeid, found in self.taken.items():
            if found.get("memory_refusals") and self.outcomes.get(nodeid) == "passed":
                terminalreporter.line(
                    f"memlimits: {nodeid} passed, and caught {_times(found['memory_refusals'])}"
                )


def _is_ours(name: str) -> bool:
    return name in ("memory_peak", "memory_limit", "memory_refusals", "memory_holders")


def _times(refusals: int) -> str:
    return "a refusal" if refusals == 1 else f"{refusals} refusals"


def _set_properties(item: pytest.Item, span: Span) -> None:
    """As `record_property` would: they go into JUnit's file, and with the report to xdist's."""
    found: dict[str, object] = {"memory_peak": span.peak}
    if span.limit is not None:
        found["memory_limit"] = span.limit
    if span.refusals:
        found["memory_refusals"] = span.refusals
    if holders := _holders(span):
        found["memory_holders"] = "; ".join(map(str, holders))
    kept = [one for one in item.user_properties if not _is_ours(one[0])]
    item.user_properties[:] = [*kept, *found.items()]


def _holders(span: Span) -> "list[memlimits.figures.Holder]":
    return [] if memlimits.get_holder_sampling() is None else span.holders()


def _told_of(span: Span, call: "pytest.CallInfo[None]", report: pytest.TestReport) -> str:
    last = span.last
    assert last is not None
    before = f", after {_times(span.refusals - 1)} before" if span.refusals > 1 else ""
    why = "" if last.blocked_by == "limit" else f" ({WHY.get(last.blocked_by, last.blocked_by)})"
    lines = [
        _limit_told(span),
        f"refused {format_exact(last.requested)}{why}, with "
        f"{format_size(max(0, last.active + last.slack - span.held))} in use{before}",
        *(f"held by {holder}" for holder in _holders(span)),
    ]
    if call.excinfo is None or not is_refusal(call.excinfo.value):
        lines.append(f"the test caught that, and {report.outcome}")
    return "\n".join(lines)


def _limit_told(span: Span) -> str:
    beyond = f"beyond {format_size(span.held)} that were held when the test began"
    if span.limit is None:
        return f"limit none, {beyond}"
    whole = format_size(span.held + span.limit + span.kept_for_errors)
    kept = f"; {format_size(span.kept_for_errors)} are for errors, so the process has {whole}"
    return f"limit {format_size(span.limit)}, {beyond}{kept}"


def _show_peaks(
    reporter: "pytest.TerminalReporter", taken: "dict[str, dict[str, Any]]", most: int
) -> None:
    ranked = sorted(taken.items(), key=lambda test: -test[1]["memory_peak"])
    shown = ranked[:most] if most else ranked
    reporter.section(f"largest {len(shown)} memory peaks of {len(ranked)}" if shown else "memory")
    for nodeid, found in shown:
        limit = found.get("memory_limit")
        of = f" of {format_size(limit)}" if limit is not None else ""
        refusals = found.get("memory_refusals")
        refused = f" ({_times(refusals)})" if refusals else ""
        reporter.line(f"{format_size(found['memory_peak'])}{of} {nodeid}{refused}")
        if "memory_holders" in found:
            reporter.line(f"    held by {found['memory_holders']}")


# ---- allocations that fail ----


@contextlib.contextmanager
def _failing_in_turn(item: pytest.Item, wanted: "dict[str, Any]") -> "Generator[None]":
    """Have the test's run be many, in children."""
    plain = item.runtest
    item.runtest = lambda: _judge(item, plain, wanted)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del item.runtest


def _judge(item: pytest.Item, plain: "Callable[[], None]", wanted: "dict[str, Any]") -> None:
    from memlimits.adapters import turns

    rule = {name: wanted[name] for name in marks.RULE}
    levels = testing.levels_of(wanted["level"])
    if wanted["level"] is not None and "malloc" in levels and not testing.is_governed("malloc"):
        pytest.fail(
            "level='malloc' needs a process whose malloc is governed: "
            "memlimits run --govern all -m pytest",
            pytrace=False,
        )
    with contextlib.ExitStack() as stack:
        for level in {"numpy", "python"} & {*levels}:
            if level == "numpy" and wanted["level"] is None and not memlimits._numpy_is_there():
                continue  # nobody named it
            stack.enter_context(getattr(memlimits, f"govern_{level}")())
        found = item.stash[_TURNS] = turns.in_turn(
            lambda: _run_once(item, plain),
            rule,
            most=wanted["max"],
            timeout=wanted["timeout"],
            leak=wanted["leak"],
        )
    if found[0].kind in ("wrong", "raised"):
        plain()  # here, for its own report
    worse = [str(turn) for turn in found if turn.kind not in turns.CLEAN]
    if found[0].kind == "passed" and not found[0].requests:
        counted = ", ".join(f"{name}={value!r}" for name, value in rule.items())
        worse = [f"the test made no request that counts: {counted}"]
    if worse:
        pytest.fail("\n".join(worse), pytrace=False)


def _left_out(found: "list[turns.Turn]", most: int) -> "list[str]":
    if found[-1].nth < most or found[0].requests <= most:
        return []
    return [f"of {found[0].requests} requests the others were left alone (max={most})"]


def _run_once(item: pytest.Item, plain: "Callable[[], None]") -> None:
    plain()
    # A TestCase's errors are kept by its item, and with them what their frames hold.
    errors = getattr(item, "_excinfo", None)
    if errors:
        item._excinfo = None  # type: ignore[attr-defined]
        raise errors.pop(0).value

"""The metrics of a process, in the formats that a scrape may ask for."""

import os
import re
import subprocess
import sys
import textwrap

import pytest

prometheus_client = pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest  # noqa: E402
from prometheus_client.openmetrics.parser import text_string_to_metric_families  # noqa: E402

import memlimits  # noqa: E402
from memlimits import errors, figures  # noqa: E402
from memlimits.adapters.prometheus import (  # noqa: E402
    MemoryCollector,
    PoolCollector,
    application,
)
from support.places import ROOT  # noqa: E402
from support.process import run  # noqa: E402

MIB = 1 << 20
PAGE = ROOT / "docs/guides/monitoring.md"
NOT_NUMBERS = {"policy", "memory_count"}


@pytest.fixture
def registry():
    registry = CollectorRegistry()
    MemoryCollector(registry)
    return registry


def families(registry):
    return {family.name: family for family in registry.collect()}


def test_every_attribute_is_told_once_by_its_name(registry):
    """Of the kind that its docstring's words make it: counts since the start, or what is now."""
    told = families(registry)
    attributes = set(figures.Stats.__annotations__) - NOT_NUMBERS
    attributes -= {f"refusals_by_{cause}" for cause in errors.WHY}
    names = {}
    for attribute in attributes:
        unit = "_bytes" * (attribute in figures.SIZES) + "_seconds" * (attribute == "idle_timeout")
        names[f"memlimits_{attribute}{unit}"] = attribute
    others = {"memlimits", "memlimits_scrape_success"}
    others |= {f"memlimits_budget_{name}_bytes" for name in ("active", "peak", "limit")}
    assert set(told) == set(names) | others
    assert {name for name, family in told.items() if family.type == "counter"} == {
        *(f"memlimits_{name}" for name in ("hits", "misses", "steals", "evictions", "overruns")),
        *(f"memlimits_{name}" for name in ("refusals", "wires", "wire_failures", "commits")),
        *(f"memlimits_{name}" for name in ("trims", "pressure_trims", "decays", "waits")),
        *(f"memlimits_{name}_bytes" for name in ("evicted", "trimmed", "pressure_trimmed")),
        "memlimits_decayed_bytes", "memlimits_waited_seconds",
    }  # fmt: skip


def test_values_are_those_of_stats(registry):
    block = memlimits.allocate(5 * MIB)
    with pytest.raises(MemoryError):
        memlimits.allocate(1 << 62)
    stats = memlimits.stats()
    value = registry.get_sample_value
    assert value("memlimits_active_bytes") == stats.active >= block.nbytes
    assert value("memlimits_memory_limit_bytes") == stats.memory_limit
    assert value("memlimits_misses_total") == stats.misses > 0
    cause = {"cause": "max_buffer_length"}
    assert value("memlimits_refusals_total", cause) == stats.refusals_by_max_buffer_length > 0
    assert value("memlimits_waited_seconds_total") == stats.waited_seconds
    facts = {"version": memlimits.__version__, "policy": "guideline", "count": "given"}
    facts["backend"] = memlimits.device_info()["backend"]
    assert value("memlimits_info", facts) == 1
    assert value("memlimits_scrape_success", {"part": "stats"}) == 1
    block.release()


def test_no_limit_is_no_number(registry):
    memlimits.set_memory_limit(1 << 63)
    assert registry.get_sample_value("memlimits_memory_limit_bytes") is None
    assert registry.get_sample_value("memlimits_cache_limit_bytes") is None
    assert registry.get_sample_value("memlimits_idle_timeout_seconds") is None
    with memlimits.budget("endless"):
        told = families(registry)
    assert not [sample for sample in told["memlimits_budget_limit_bytes"].samples if "endless" in
                sample.labels.values()]  # fmt: skip
    values = [sample.value for family in told.values() for sample in family.samples]
    assert max(values) < errors.NO_LIMIT


def test_causes_are_those_of_refusals(registry):
    samples = families(registry)["memlimits_refusals"].samples
    assert [sample.labels["cause"] for sample in samples] == list(errors.WHY)


def test_names_of_budgets_and_lines_are_bounded():
    run("""
        from prometheus_client import CollectorRegistry, generate_latest
        from memlimits.adapters.prometheus import MemoryCollector
        registry = CollectorRegistry()
        MemoryCollector(registry, most=2)
        def told():
            found = {family.name: family.samples for family in registry.collect()}
            assert generate_latest(registry)
            budgets = found["memlimits_budget_active_bytes"]
            return ({sample.labels["budget"]: sample.value // MIB for sample in budgets},
                    sorted(found.get("memlimits_holder_bytes", ()), key=lambda one: one.value))
        held = []
        def take(name, n):
            with memlimits.budget(name):
                held.append(memlimits.allocate(n * MIB))
        take("first", 1)
        assert told() == ({"first": 1}, [])
        memlimits.set_holder_sampling(MIB)
        take("b", 2)
        take("c", 3)
        take("d", 4)
        budgets, holders = told()
        assert budgets == {"first": 1, "d": 4, "other": 5}, budgets
        del held[1:]
        budgets, holders = told()
        assert budgets["first"] == 1 and budgets["other"] == 0, budgets
        held += [memlimits.allocate(5 * MIB)]
        held += [memlimits.allocate(6 * MIB)]
        held += [memlimits.allocate(7 * MIB)]
        budgets, holders = told()
        # The line that holds most is the second that came.
        told = [(one.labels["function"], one.labels["file"], one.value // MIB) for one in holders]
        assert told == [("<module>", "<string>", 7), ("", "other", 11)], told
        # A path that is no text.
        exec(compile("held += [memlimits.allocate(8 * MIB)]", "caf\\udce9.py", "exec"))
        other = CollectorRegistry()
        MemoryCollector(other)
        assert b'memlimits_holder_bytes{file="caf\\\\\\\\udce9.py"' in generate_latest(other)
    """)


@pytest.mark.parametrize(
    ("most", "error"), [(-1, ValueError), (True, TypeError), (2.5, TypeError)], ids=str
)
def test_what_is_no_number_of_names(most, error):
    with pytest.raises(error, match=f"most must be .*{most}"):
        MemoryCollector(None, most=most)


def test_one_collector_is_enough(registry):
    with pytest.raises(ValueError, match="has the metrics of this process already"):
        MemoryCollector(registry)
    PoolCollector(registry=registry)
    with pytest.raises(ValueError, match="has the metrics of pools already"):
        PoolCollector("other", registry=registry)
    assert generate_latest(registry).count(b"TYPE memlimits_active_bytes") == 1


def test_one_metric_can_be_asked_for(registry):
    names = ["memlimits_active_bytes", "memlimits_refusals_total"]
    told = generate_latest(registry.restricted_registry(names)).decode()
    types = [line.split()[2] for line in told.splitlines() if line.startswith("# TYPE")]
    assert types == names


def get(registry, method="GET", **headers):
    answers = []
    environ = {"REQUEST_METHOD": method, **headers}
    body = b"".join(application(registry)(environ, lambda *answer: answers.append(answer)))
    [(status, fields)] = answers
    return status.split()[0], dict(fields).get("Content-Type"), body


TEXT, OPEN = "text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        (PROMETHEUS, OPEN),
        ("text/plain;version=0.0.4,application/openmetrics-text;q=0.9", TEXT),
        ("text/plain;q=0.4, application/openmetrics-text;version=1.0.0;q=0.5", OPEN),
        ("application/openmetrics-text;version=2.0.0, text/plain", TEXT),
        ("application/openmetrics-text;version=3.0.0, */*;q=0.1", TEXT),
        ("application/openmetrics-text;q=0, */*;q=0.1", TEXT),
        ("text/plain;q=0, */*", OPEN),
        ("text/*;q=0.5, application/*;q=0.6", OPEN),
        ("text/plain; q=nonsense, application/openmetrics-text", OPEN),
        ("text/html", None),
        ("*/*;q=0", None),
    ],
    ids=str,
)
def test_the_format_is_what_was_asked_for(registry, accept, form):
    status, kind, body = get(registry, HTTP_ACCEPT=accept)
    if form is None:
        assert (status, body) == ("406", b"406 Not Acceptable\n")
        return
    assert (status, kind) == ("200", f"{form}; charset=utf-8")
    assert body.endswith(b"# EOF\n") == (form == OPEN)


def test_openmetrics_can_be_parsed(registry):
    """By the strict parser that comes with prometheus_client."""
    body = get(registry, HTTP_ACCEPT="application/openmetrics-text")[2].decode()
    told = {family.name: family for family in text_string_to_metric_families(body)}
    assert told["memlimits_evicted_bytes"].type == "counter"
    assert told["memlimits_evicted_bytes"].unit == "bytes"
    assert told["memlimits"].type == "info"


def test_other_requests_get_an_answer(registry):
    assert get(registry, "POST") == (
        "405",
        "text/plain; charset=utf-8",
        b"405 Method Not Allowed\n",
    )
    status, _kind, body = get(registry, "HEAD")
    assert (status, body) == ("200", b"")


@pytest.mark.host
def test_a_scrape_at_the_limit_and_after_refusals():
    """Python's objects are refused all that is left; the metrics are told all the same."""
    run("""
        from wsgiref.simple_server import WSGIServer, make_server
        from urllib.request import urlopen
        from prometheus_client import CollectorRegistry, start_http_server
        from memlimits.adapters.prometheus import MemoryCollector, application
        registry = CollectorRegistry()
        MemoryCollector(registry)
        ours = make_server("127.0.0.1", 0, application(registry))
        threading.Thread(target=ours.serve_forever, daemon=True).start()
        theirs, _ = start_http_server(0, "127.0.0.1", registry)
        addresses = [f"http://127.0.0.1:{one.server_port}/metrics" for one in (ours, theirs)]
        for address in addresses:
            urlopen(address).read()
        # What reads in this process is governed, too.
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(64 * MIB)
        held = []
        with memlimits.govern_python():
            for step in (16 * MIB, 2 * MIB):
                try:
                    while True:
                        held.append(bytes(step))
                except MemoryError:
                    pass
                told = [urlopen(address).read().decode() for address in addresses]
                for text in told:
                    assert 'memlimits_scrape_success{part="stats"} 1.0' in text, text
                    assert 'memlimits_refusals_total{cause="limit"} 0.0' not in text, text
            del held
        ours.shutdown(), theirs.shutdown()
    """)


@pytest.mark.host
def test_the_whole_answer_is_made_where_nothing_is_left():
    run("""
        from prometheus_client import CollectorRegistry
        from memlimits.adapters.prometheus import MemoryCollector, application
        registry = CollectorRegistry()
        collector = MemoryCollector(registry)
        def get():
            return app({"REQUEST_METHOD": "GET"}, lambda status, headers: None)
        app = application(registry)
        plain = get(), collector.collect()
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(32 * MIB)
        held = None
        with memlimits.govern_python():
            for size in (MIB, 4096, 500, 40):
                try:
                    while True:
                        held = (held, bytes(size))
                except MemoryError:
                    pass
            body, metrics = get(), collector.collect()
            while held:
                held = held[0]
        assert len(metrics) == len(plain[1]) and b'_success{part="stats"} 1.0' in body[0]
        assert abs(len(body[0]) - len(plain[0][0])) < 500
    """)


@pytest.mark.host
def test_a_part_that_is_refused_says_so():
    """The list of holders takes 1.5 MiB of the system, which has none left."""
    run("""
        from prometheus_client import CollectorRegistry
        from memlimits.adapters.prometheus import MemoryCollector
        registry = CollectorRegistry()
        MemoryCollector(registry)
        memlimits.set_holder_sampling(MIB)
        block = memlimits.allocate(2 * MIB)
        def told(part):
            return registry.get_sample_value("memlimits_scrape_success", {"part": part})
        # What was freed before would be there again.
        held = proc("VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 19), -1))
        assert told("holders") == 0 and told("stats") == told("budgets") == 1
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        assert told("holders") == 1
    """)


def test_a_system_without_memory_gets_an_answer(registry):
    class Refused:
        def collect(self):
            raise MemoryError

    registry.register(Refused())
    status, _, body = get(registry)
    assert (status, body) == ("503", b"503 Service Unavailable\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_tells_its_own_figures():
    """As a worker of gunicorn's does, with --preload."""
    run("""
        from prometheus_client import CollectorRegistry
        from memlimits.adapters.prometheus import MemoryCollector
        registry = CollectorRegistry()
        MemoryCollector(registry)
        value = registry.get_sample_value
        mine = memlimits.allocate(3 * MIB)
        before = value("memlimits_process_peak_resident_bytes")
        child = os.fork()
        if not child:
            filled = memlimits.allocate(40 * MIB, zeroed=True)
            memoryview(filled)[:] = bytes([1]) * len(memoryview(filled))
            more = value("memlimits_active_bytes") >= 43 * MIB
            os._exit(0 if more and value("memlimits_process_resident_bytes") > 40 * MIB else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert value("memlimits_active_bytes") == 3 * MIB
    """)


def test_what_the_page_shows(tmp_path):
    pages = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    (tmp_path / "page.txt").write_text("\n".join(text for kind, text in pages if kind == "pycon"))
    words = [sys.executable, "-W", "error", "-m", "doctest", tmp_path / "page.txt"]
    subprocess.run(words, cwd=tmp_path, check=True)
    examples = "import doctest, memlimits.adapters.prometheus as m; print(doctest.testmod(m))"
    words = [sys.executable, "-W", "error", "-c", examples]
    done = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert done.stdout.startswith(b"TestResults(failed=0, attempted=10)"), done.stdout
    [workers] = [text for kind, text in pages if kind == "python"]
    done = subprocess.run(
        [sys.executable, "-c", f"{workers}\nlist(registry.collect())"],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_every_name_on_the_page_is_told():
    named = set(re.findall(r"memlimits_\w+", PAGE.read_text())) - {"memlimits_"}
    registry = CollectorRegistry()
    MemoryCollector(registry)
    PoolCollector(registry=registry, by_process=True)
    told = set(registry._names_to_collectors)
    assert named - told == set()


def test_without_the_library_the_error_says_what_to_install(tmp_path):
    (tmp_path / "prometheus_client.py").write_text("raise ModuleNotFoundError(name=__name__)")
    program = textwrap.dedent("""
        import memlimits.cli
        try:
            import memlimits.adapters.prometheus
        except ModuleNotFoundError as error:
            print(error.name, error)
        print(memlimits.cli.main(["metrics"]))
    """)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.stdout == (
        "prometheus_client memlimits.adapters.prometheus needs prometheus_client: "
        "pip install prometheus_client\n2\n"
    )
    assert "metrics need prometheus_client: pip install prometheus_client" in done.stderr

"""A real Prometheus scrapes real programs: what it stores, and which of the alerts fire."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

pytest.importorskip("prometheus_client")

from importlib.resources import files

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

import memlimits
from memlimits.adapters.prometheus import MemoryCollector, PoolCollector

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(
        not (shutil.which("prometheus") and shutil.which("promtool")),
        reason="Debian's package prometheus is missing",
    ),
]

MIB = 1 << 20
DATA = files("memlimits.adapters")
RULES = DATA / "prometheus_rules.yml"

# A server with a budget and samples of its holders, in a pool and near its limit: it has memory
# from idle blocks and from the device all the time, and is refused some for each line it is told.
PROGRAM = """
import sys, threading, time
import memlimits
from prometheus_client import start_http_server
from memlimits.adapters.prometheus import MemoryCollector, PoolCollector

memlimits.set_holder_sampling(1 << 20)
memlimits.join("shared", limit=64 << 20)
MemoryCollector()
PoolCollector()
memlimits.set_memory_limit(50 << 20)
memlimits.set_memory_policy("strict")
server, _ = start_http_server(0, "127.0.0.1")
with memlimits.budget("model", 49 << 20):
    block = memlimits.allocate(48 << 20)

def work():
    while True:
        memlimits.allocate(1 << 16).release()
        memlimits.allocate(1 << 20).release()
        memlimits.clear_cache()
        time.sleep(0.01)

threading.Thread(target=work, daemon=True).start()
print(server.server_port, flush=True)
for line in sys.stdin:
    try:
        memlimits.allocate(20 << 20)
    except memlimits.MemoryLimitError:
        print("refused", flush=True)
"""

CONFIG = """
global:
  scrape_interval: 200ms
  scrape_timeout: 200ms
  evaluation_interval: 300ms
rule_files: [{rules}]
scrape_configs:
  - job_name: program
    static_configs: [{{targets: ["127.0.0.1:{program}"]}}]
  - job_name: pools
    static_configs: [{{targets: ["127.0.0.1:{pools}"]}}]
"""


def until(ask, seconds=60):
    """What is asked for, once it is there: how long that takes is the machine's affair."""
    end = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


class Prometheus:
    """One that scrapes a program and the pools, and its HTTP API."""

    def __init__(self, folder, **targets):
        (folder / "prometheus.yml").write_text(CONFIG.format(rules=RULES, **targets))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = [
            "prometheus", f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{self.port}",
        ]  # fmt: skip
        self.log = open(folder / "log", "w")  # noqa: SIM115 - until close()
        self.process = subprocess.Popen(words, stderr=self.log, stdout=self.log)
        until(self.is_ready)

    def is_ready(self):
        try:
            return urlopen(f"http://127.0.0.1:{self.port}/-/ready").status == 200
        except URLError:
            return False

    def ask(self, what, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urlencode(parameters)}"
        answer = json.load(urlopen(url))
        assert answer["status"] == "success"
        return answer["data"]

    def query(self, expression):
        return self.ask("query", query=expression)["result"]

    def value(self, expression):
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def firing(self):
        alerts = self.ask("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A program, an exporter of its pool, and Prometheus."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "pools").mkdir()
    patch = pytest.MonkeyPatch()
    patch.setenv("MEMLIMITS_POOLS", str(folder / "pools"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], **pipes)
    port = program.stdout.readline().strip()
    words = [sys.executable, "-m", "memlimits", "metrics", "--port=0"]
    exporter = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    pools = re.search(r":(\d+)/", exporter.stderr.readline())[1]
    prometheus = Prometheus(folder, program=port, pools=pools)
    until(lambda: prometheus.value("count(up == 1)") == 2)
    yield prometheus, program
    prometheus.close()
    for process in (program, exporter):
        process.send_signal(signal.SIGKILL)
        process.communicate()
    patch.undo()


def test_what_it_stores_is_what_the_program_has(scene):
    prometheus, _ = scene
    assert prometheus.value("memlimits_memory_limit_bytes") == 50 * MIB
    assert prometheus.value('memlimits_budget_active_bytes{budget="model"}') == 48 * MIB
    assert prometheus.value("max(memlimits_holder_bytes)") == 48 * MIB
    for job in ("program", "pools"):
        labels = f'{{job="{job}", pool="shared"}}'
        assert prometheus.value(f"memlimits_pool_limit_bytes{labels}") == 64 * MIB
        assert prometheus.value(f"memlimits_pool_member_active_bytes{labels}") >= 48 * MIB
    kinds = {one["type"] for one in prometheus.ask("metadata")["memlimits_hits"]}
    assert kinds == {"counter"}


def test_refusals_in_five_minutes_fire_the_rule(scene):
    """The rule is as it is shipped; only its evaluation comes more often."""
    prometheus, program = scene
    assert prometheus.value("sum(memlimits_refusals_total)") == 0
    assert prometheus.firing() == set()
    program.stdin.write("\n")
    program.stdin.flush()
    assert program.stdout.readline() == "refused\n"
    # The pool counts what its members were refused, too.
    both = {"MemlimitsRefusals", "MemlimitsPoolRefusals"}
    until(lambda: both <= prometheus.firing())
    alerts = prometheus.ask("alerts")["alerts"]
    [alert] = [one for one in alerts if one["labels"]["alertname"] == "MemlimitsRefusals"]
    assert alert["labels"]["cause"] == "limit"
    assert "was refused memory" in alert["annotations"]["summary"]
    assert prometheus.firing() == both
    # They have to stay so for five minutes.
    pending = {one["labels"]["alertname"] for one in alerts if one["state"] == "pending"}
    assert {"MemlimitsNearLimit"} <= pending


def test_every_expression_of_the_dashboard_returns_series(scene):
    prometheus, program = scene
    program.stdin.write("\n")
    program.stdin.flush()
    assert program.stdout.readline() == "refused\n"
    board = json.loads((DATA / "prometheus_dashboard.json").read_text())
    expressions = {
        target["expr"] for panel in board["panels"] for target in panel.get("targets", ())
    }
    assert len(expressions) > 30
    for expression in expressions:
        filled = re.sub(r"\$(job|instance|pool)\b", ".*", expression)
        filled = filled.replace("$__rate_interval", "10s")
        assert "$" not in filled
        # A rate needs two scrapes.
        until(lambda text=filled: prometheus.query(text), 20)


def test_the_variables_of_the_dashboard_name_series(scene):
    prometheus, _ = scene
    board = json.loads((DATA / "prometheus_dashboard.json").read_text())
    for variable in board["templating"]["list"][1:]:
        series, label = re.fullmatch(
            r"label_values\((.*), (\w+)\)", variable["definition"]
        ).groups()
        match = re.sub(r"\$\w+", ".*", series)
        assert prometheus.ask(f"label/{label}/values", **{"match[]": match}), series


def lost(ours, theirs, at=""):
    """What of ours is not in theirs, which may have more."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        parts = [(ours[key], theirs.get(key), f"{at}.{key}") for key in ours]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        parts = [(*pair, f"{at}[{i}]") for i, pair in enumerate(zip(ours, theirs, strict=True))]
    else:
        return [] if ours == theirs else [at]
    return [path for part in parts for path in lost(*part)]


def test_the_dashboard_is_one_of_grafanas():
    """Grafana's own classes, made of its schema, read it and write the same again."""
    dashboard = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins

    register_default_plugins()
    board = json.loads((DATA / "prometheus_dashboard.json").read_text())
    again = json.loads(JSONEncoder().encode(dashboard.Dashboard.from_json(board)))
    # What Grafana shows of a variable in its list of them is in none of the classes.
    shown = [f".templating.list[{i}].definition" for i in (1, 2, 3)]
    assert lost(board, again) == shown
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


def promtool(*words, text=None):
    done = subprocess.run(["promtool", *words], input=text, capture_output=True)
    return done.returncode, done.stdout + done.stderr


def test_promtool_has_nothing_to_say():
    registry = CollectorRegistry()
    MemoryCollector(registry)
    PoolCollector("missing", registry=registry, by_process=True)
    with memlimits.budget("b"):
        text = generate_latest(registry)
    assert promtool("check", "metrics", text=text) == (0, b"")
    assert openmetrics.generate_latest(registry).endswith(b"# EOF\n")
    status, said = promtool("check", "rules", str(RULES))
    assert (status, b"SUCCESS: 6 rules found" in said) == (0, True), said


# What Prometheus's own evaluation of the rules makes of series over ten minutes.
CASES = """
rule_files: [{rules}]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - {{series: 'memlimits_refusals_total{{instance="a",cause="limit"}}', values: 5x4 6x16}}
      - {{series: 'memlimits_pool_refusals_total{{instance="a",pool="p"}}', values: 7x20}}
      - {{series: 'memlimits_footprint_bytes{{instance="a"}}', values: 95x20}}
      - {{series: 'memlimits_cache_bytes{{instance="a"}}', values: 0x20}}
      - {{series: 'memlimits_memory_limit_bytes{{instance="a"}}', values: 100x20}}
      - {{series: 'memlimits_footprint_bytes{{instance="idle"}}', values: 100x20}}
      - {{series: 'memlimits_cache_bytes{{instance="idle"}}', values: 50x20}}
      - {{series: 'memlimits_memory_limit_bytes{{instance="idle"}}', values: 100x20}}
      - {{series: 'memlimits_footprint_bytes{{instance="unlimited"}}', values: 1000x20}}
      - {{series: 'memlimits_cache_bytes{{instance="unlimited"}}', values: 0x20}}
      - {{series: 'memlimits_pool_member_active_bytes{{instance="a",pool="p",command="b"}}',
         values: 50x20}}
      - {{series: 'memlimits_pool_member_active_bytes{{instance="a",pool="p",command="c"}}',
         values: 45x20}}
      - {{series: 'memlimits_pool_limit_bytes{{instance="a",pool="p"}}', values: 100x20}}
      - {{series: 'memlimits_waiting{{instance="a"}}', values: 0x20}}
      - {{series: 'memlimits_pool_members_waiting{{instance="a",pool="p",command="b"}}',
         values: 0x2 1x18}}
      - {{series: 'memlimits_scrape_success{{instance="a",part="stats"}}', values: 1x20}}
      - {{series: 'memlimits_pool_scrape_success{{instance="a",pool="gone"}}', values: 0x20}}
"""


def fired(tmp_path, alert, minutes):
    """The instances for which an alert fires by then, as promtool tells where none is expected."""
    series = CASES.format(rules=RULES)
    test = f"    alert_rule_test:\n      - {{alertname: {alert}, eval_time: {minutes}m}}\n"
    (tmp_path / "cases.yml").write_text(series + test)
    status, said = promtool("test", "rules", str(tmp_path / "cases.yml"))
    found = re.findall(r'instance="(\w+)"', said.decode().partition("got:")[2])
    assert bool(found) == bool(status), said
    return found


@pytest.mark.parametrize(
    ("alert", "before", "after"),
    [
        ("MemlimitsRefusals", 2, 3),
        ("MemlimitsPoolRefusals", 10, None),
        ("MemlimitsNearLimit", 4, 6),
        ("MemlimitsPoolNearLimit", 4, 6),
        ("MemlimitsWaits", 5, 7),
        ("MemlimitsScrapeFailed", 4, 6),
    ],
)
def test_when_an_alert_fires(tmp_path, alert, before, after):
    assert fired(tmp_path, alert, before) == []
    if after is not None:
        assert fired(tmp_path, alert, after) == ["a"]


def test_refusals_are_forgotten_after_five_minutes(tmp_path):
    assert fired(tmp_path, "MemlimitsRefusals", 9) == []

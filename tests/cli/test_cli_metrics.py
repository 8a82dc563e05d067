"""`memlimits metrics`: what it prints, serves and refuses."""

import json
import re
import signal
import subprocess
import sys
from urllib.request import Request, urlopen

import pytest

from support.commands import execute

pytestmark = pytest.mark.host


@pytest.fixture
def command(environ, tmp_path):
    def run(*words):
        return execute("-m", "memlimits", *words, env=environ, cwd=tmp_path)

    return run


def test_it_prints_all_pools_or_those_that_are_named(command):
    pytest.importorskip("prometheus_client")
    for name in ("one", "two"):
        assert command("pool", "create", name, "--limit=64MiB").returncode == 0
    limit = rb'^memlimits_pool_limit_bytes\{pool="(.*)"\} 6.7108864e\+07$'
    assert re.findall(limit, command("metrics").stdout, re.M) == [b"one", b"two"]
    done = command("metrics", "two", "three")
    assert re.findall(limit, done.stdout, re.M) == [b"two"]
    assert b'memlimits_pool_scrape_success{pool="three"} 0.0' in done.stdout
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_them_until_it_is_ended(command, environ, tmp_path, ending):
    pytest.importorskip("prometheus_client")
    words = [sys.executable, "-m", "memlimits", "metrics", "--port=0"]
    pipes = {"stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=environ, cwd=tmp_path, **pipes) as server:
        said = server.stderr.readline()
        address = re.fullmatch(r"memlimits: metrics at (http://127\.0\.0\.1:\d+/metrics)\n", said)[
            1
        ]
        try:
            assert b"{pool=" not in urlopen(address).read()
            command("pool", "create", "late", "--limit=64MiB")
            accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
            with urlopen(Request(address, headers=accept)) as answer:
                told = answer.read()
            assert b'memlimits_pool_limit_bytes{pool="late"} 6.7108864e+07' in told
            assert told.endswith(b"# EOF\n")
            port = address.split(":")[2].split("/")[0]
            taken = command("metrics", f"--port={port}")
        finally:
            server.send_signal(ending)
        assert server.stderr.read() == ""
    assert server.returncode == (0 if ending == signal.SIGINT else -signal.SIGTERM)
    assert taken.returncode == 2
    assert f"cannot listen on 127.0.0.1, port {port}: " in taken.stderr.decode()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["a/b"], "invalid pool name 'a/b'"),
        (["--port=70000"], "--port 70000: a port is a number from 0 to 65535"),
        (["--port=0", "--address=256.1.1.1"], "cannot listen on 256.1.1.1, port 0: "),
        (["--port=much"], "invalid int value: 'much'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_in_a_sentence(command, words, error):
    pytest.importorskip("prometheus_client")
    done = command("metrics", *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert error in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_the_dashboard_and_the_rules_are_in_the_package(command):
    """Both can be had without prometheus_client."""
    board = json.loads(command("metrics", "--dashboard").stdout)
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows == [
        "Memory against limits", "Refusals", "Waits", "Cache hits", "Processes", "Who holds it"
    ]  # fmt: skip
    assert command("metrics", "--rules").stdout.count(b"- alert: ") == 6

"""`memlimits info`, `--version` and the command's usage."""

import json
import os
import re
import subprocess
import sys

import pytest

import memlimits
from memlimits import cli
from memlimits.cli import info


def command(*words, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "memlimits", *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_json_is_the_facts_the_limits_and_the_counters():
    told = json.loads(command("info", "--json"))
    assert set(told) == {"device", "limits", "counters"}
    assert told["device"] == memlimits.device_info()
    # The defaults of the documentation.
    device = told["device"]
    limit = told["limits"]["memory_limit"]
    assert limit == pytest.approx(
        min(1.5 * device["max_recommended_working_set_size"], 0.95 * device["memory_size"]), abs=1
    )
    assert told["limits"] == {
        "memory_limit": limit,
        "cache_limit": limit,
        "wired_limit": 0,
        "policy": "guideline",
        "memory_count": "given",
        "idle_timeout": None,
    }
    assert {*told["limits"], *told["counters"]} == set(memlimits.stats()._asdict())
    assert type(told["counters"].pop("waited_seconds")) is float
    assert set(map(type, told["counters"].values())) == {int}


def test_text_says_the_same_for_people():
    told = json.loads(command("info", "--json"))
    text = command("info", "--all")
    lines = text.splitlines()
    values = {}
    columns = set()
    for line in lines:
        if found := re.match(r"(  (\w+) +)(\S.*)", line):
            columns.add(len(found[1]))
            values[found[2]] = found[3]
    assert len(columns) == 1  # aligned
    assert [line for line in lines if line in told] == list(told)
    assert list(values) == [key for section in told.values() for key in section]
    exact = {
        key: int(re.search(r"([\d,]+)(?: bytes\)| B)?$", value)[1].replace(",", ""))
        for key, value in values.items()
        if re.search(r"\d$|bytes\)$| B$", value) and key not in ("device_name", "architecture")
    }
    for section in told.values():
        for key, value in section.items():
            if key.startswith("process_"):  # each of the two programs its own
                assert exact[key] == pytest.approx(value, abs=4 << 20)
                continue
            shown = {None: "never"}.get(value, f"{value:g} s" if type(value) is float else value)
            assert (exact[key] if isinstance(value, int) else values[key]) == shown
    assert (
        re.fullmatch(r"[\d.]+ GiB \([\d,]+ bytes\)", values["memory_size"])
        or exact["memory_size"] < 2**30
    )
    assert values["resources"] == "0"
    assert values["wired_limit"] == "0 B"


def test_what_is_0_is_left_out_unless_asked_for():
    text = command("info")
    assert "wired_limit                       0 B" in text
    assert "process_resident" in text
    _, _, counters = text.partition("\ncounters\n")
    assert not re.search(r" 0(?: B| s)?$", counters, re.MULTILINE)
    assert "refusals" not in text
    assert re.search(r"^  refusals +0$", command("info", "--all"), re.MULTILINE)


def test_a_section_that_says_nothing_is_left_out(monkeypatch, capsys):
    nothing = dict.fromkeys(info.facts()["counters"], 0)
    monkeypatch.setattr(info, "facts", lambda: {"limits": {"policy": "wait"}, "counters": nothing})
    assert cli.main(["info"]) == 0
    assert capsys.readouterr().out == f"limits\n  {'policy':<32}  wait\n"


def test_version():
    assert command("--version") == f"memlimits {memlimits.__version__}\n"


def test_info_needs_no_numpy():
    program = (
        "import sys; from memlimits.cli import main; status = main(['info', '--json']);"
        "sys.exit(status or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", [["-h"], ["info", "-h"], ["run", "-h"], ["run", "--help", "x"]])
def test_help(words):
    text = command(*words)
    assert text.startswith("usage: memlimits")
    if words[0] == "run":
        assert "[options] -m module [ARGS...]" in text
        assert "512MiB, 2GB, 1.5GiB, 50% (of the memory size)" in text


@pytest.mark.parametrize(
    "words", [[], ["frobnicate"], ["--memory-limit", "1GiB"], ["info", "x"], ["info", "--jso"]]
)
def test_wrong_usage(words):
    assert "memlimits" in command(*words, code=2)


def test_variables_of_run_are_named_and_change_nothing():
    environ = {"MEMLIMITS_MEMORY_LIMIT": "5MiB", "MEMLIMITS_POLICI": "wait"}
    done = subprocess.run(
        [sys.executable, "-m", "memlimits", "info", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
    )
    assert json.loads(done.stdout)["limits"]["memory_limit"] == memlimits.get_memory_limit()
    assert done.stderr == (
        "memlimits: of use to `memlimits run` only: MEMLIMITS_MEMORY_LIMIT\n"
        "memlimits: warning: variable MEMLIMITS_POLICI is not known "
        "(did you mean MEMLIMITS_POLICY?)\n"
    )

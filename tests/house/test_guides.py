"""Links from page to page lead to a file that is there, and to a heading in it; pages are whole."""

import doctest
import json
import os
import re
import shlex
import subprocess
import sys

import pytest

import memlimits
from support.places import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
pytestmark = pytest.mark.skipif(not (ROOT / "docs").exists(), reason="not in a clone")


def without_code(path):
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)


def anchors(path):
    """Those that GitHub and MyST give the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", without_code(path), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(path):
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", without_code(path))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_every_guide_is_among_the_guides():
    guides = ROOT / "docs/guides"
    listed = re.findall(r"^([\w-]+)$", (guides / "index.md").read_text(), re.M)
    assert sorted(listed) == sorted(
        path.stem for path in guides.glob("*.md") if path.stem != "index"
    )


def test_all_functions_are_seen_at_a_glance():
    shown = re.findall(r"`([\w.]+)", (ROOT / "docs/guides/functions.md").read_text())
    functions = {
        name for name in memlimits.__all__ if not isinstance(getattr(memlimits, name), type)
    }
    assert {*functions, "limits", *shown} == {*shown}


@pytest.mark.host
def test_a_programs_workers_are_refused_as_the_guide_shows(tmp_path):
    pytest.importorskip("numpy")
    page = (ROOT / "docs/guides/workers.md").read_text()
    (program, shown), *_ = re.findall(
        r"^```python\n(.*?)^```$.*?^```text\n(.*?)^```$", page, re.M | re.S
    )
    (tmp_path / "program.py").write_text(program)
    words = [sys.executable, "program.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert doctest.OutputChecker().check_output(shown, done.stdout, doctest.ELLIPSIS), done.stdout


@pytest.fixture
def shell(tmp_path):
    """Run a script in a folder where the programs of the guides are, with pools of its own."""
    python = shlex.quote(sys.executable)
    (tmp_path / "memlimits").write_text(f'#!/bin/sh\nexec {python} -m memlimits "$@"\n')
    (tmp_path / "memlimits").chmod(0o755)
    for name in ("serve.py", "other.py"):
        (tmp_path / name).write_text("held = bytes(1 << 20)\n")
    path = f"{tmp_path}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "MEMLIMITS_POOLS": str(tmp_path / "pools")}
    (tmp_path / "pools").mkdir(mode=0o700)

    def run(script, **options):
        words = ["sh", "-euc", script]
        return subprocess.run(words, cwd=tmp_path, env=environ, check=True, text=True, **options)

    return run


def scripts(page):
    return re.findall(r"^```sh\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)


@pytest.mark.host
def test_commands_for_servers(shell, tmp_path):
    [script] = scripts("docs/guides/servers.md")
    done = shell(script, capture_output=True)
    assert "gpu0" in done.stdout
    assert os.listdir(tmp_path / "pools") == []


@pytest.mark.host
def test_commands_for_prometheus(shell, tmp_path):
    """Where nobody scrapes, it prints what it would serve."""
    pytest.importorskip("prometheus_client")
    exporter, files = scripts("docs/guides/monitoring.md")
    done = shell(exporter.replace(" --port 9400", ""), capture_output=True)
    assert 'memlimits_pool_limit_bytes{pool="gpu0"}' in done.stdout
    shell(files)
    assert "groups:" in (tmp_path / "memlimits.rules.yml").read_text()
    assert json.loads((tmp_path / "memlimits.json").read_text())["panels"]


@pytest.mark.host
def test_commands_that_look(shell):
    """With the number of the shell's own child in the place of 4711."""
    [script] = scripts("docs/guides/top.md")
    hold = "import memlimits, time; held = memlimits.allocate(1 << 20); print(1); time.sleep(60)"
    begin = f"""
        memlimits pool create gpu0 --limit 1GiB
        mkfifo ready
        {shlex.quote(sys.executable)} -uc '{hold}' > ready &
        trap 'kill $!' EXIT
        read line < ready
    """
    done = shell(begin + script.replace("4711", "$!"), capture_output=True)
    assert "gpu0" in done.stdout
    assert '"pools"' in done.stdout


@pytest.mark.parametrize(
    "question",
    [
        "containers.md",  # my job is killed
        "how-much.md",
        "holders.md",
        "libraries.md",  # does it work with torch
        "performance.md",
        "workers.md",
        "macos.md",
        "notebooks.md",
        "undo.md#undo",
        "undo.md#uninstall",
    ],
)
def test_a_strangers_question_is_one_link_away(question):
    readme = links(ROOT / "README.md")
    assert [link for link in readme if link.endswith("/" + question)] != []

"""`memlimits run`: its options, and what becomes of a program inside its limits."""

import json
import os
import re
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest

import memlimits
from memlimits import cli
from memlimits.cli import help as cli_help
from memlimits.cli import options as cli_options
from memlimits.cli import run as cli_run

MIB = 2**20

SHOW = """
import json, memlimits
from memlimits import memory
print(json.dumps([memlimits.get_memory_limit(), memlimits.get_cache_limit(),
                  memlimits.get_wired_limit(), memory.get_memory_policy()]))
"""

ONE_GIB = "import numpy; a = numpy.empty(2**30, dtype=numpy.uint8); print(a.nbytes)\n"


@pytest.fixture
def run(tmp_path):
    def run(source, *options, program=("program.py",), code=0, **keywords):
        (tmp_path / "program.py").write_text(source)
        done = subprocess.run(
            [sys.executable, "-m", "memlimits", "run", *options, *program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            **keywords,
        )
        assert done.returncode == code, done.stderr
        return done

    return run


DEFAULT = memlimits.get_memory_limit()


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ([], [DEFAULT, DEFAULT, 0, "guideline"]),
        (["--memory-limit", "200MiB"], [200 * MIB, 200 * MIB, 0, "strict"]),
        (["--memory-limit=2GB"], [2 * 10**9, 2 * 10**9, 0, "strict"]),
        (
            ["--memory-limit", "50%"],
            [memlimits.device_info()["memory_size"] // 2] * 2 + [0, "strict"],
        ),
        (
            ["--policy", "guideline", "--memory-limit", "1GiB"],
            [1024 * MIB, 1024 * MIB, 0, "guideline"],
        ),
        (["--policy", "strict"], [DEFAULT, DEFAULT, 0, "strict"]),
        (["--policy=wait", "--memory-limit=90MiB"], [90 * MIB, 90 * MIB, 0, "wait"]),
        (["--cache-limit", "0"], [DEFAULT, 0, 0, "guideline"]),
        (
            ["--memory-limit=1.5GiB", "--cache-limit=1MiB", "--wired-limit", "4KiB", "--"],
            [1536 * MIB, MIB, 4096, "strict"],
        ),
    ],
)
def test_limits_are_set_before_the_program(run, options, limits):
    assert json.loads(run(SHOW, *options).stdout) == limits


@pytest.mark.parametrize("option", ["--memory-limit", "--cache-limit", "--wired-limit"])
@pytest.mark.parametrize("size", ["", "-5%", "-1", "1e9", "lots", "-m", "9223372036854775808"])
def test_what_is_no_size_is_refused(capsys, option, size):
    for words in ([option, size], [f"{option}={size}"]):
        with pytest.raises(SystemExit) as refusal:
            cli.main(["run", *words, "program.py"])
        assert refusal.value.code == 2
        message = capsys.readouterr().err
        why = "more than 2**63 - 1 bytes: " * (len(size) == 19)
        assert f"argument {option}: invalid size {size!r}: {why}write it as 512MiB, 2GB" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a script, -m and a module, -c and code, or - is missing"),
        (["--memory-limit", "1GiB"], "a script, -m and a module, -c and code, or - is missing"),
        (["--"], "a script, -m and a module, -c and code, or - is missing"),
        (["-m"], "argument -m: a module is missing"),
        (["-uc"], "argument -c: code is missing"),
        (["--policy", "lax", "x.py"], "argument --policy: invalid policy 'lax': write one of"),
        (["--policy"], "argument --policy: a value is missing"),
        (["--memory-limit", "--", "x.py"], "argument --memory-limit: a value is missing"),
        (["--report"], "argument --report: a value is missing"),
        (["-W"], "argument -W: a value is missing"),
        (["-BX"], "argument -X: a value is missing"),
        (["--check-hash-based-pycs"], "argument --check-hash-based-pycs: a value is missing"),
        (["--memory", "1GiB", "x.py"], "unknown option: --memory"),
        (["--memory-limt=1GiB", "x.py"], "unknown option: --memory-limt=1GiB (did you mean "),
        (["--memory_limit", "1GiB", "x.py"], "(did you mean --memory-limit?)"),
        (["--quite", "x.py"], "unknown option: --quite (did you mean --quiet?)"),
        (["--quiet=1", "x.py"], "unknown option: --quiet=1 (did you mean --quiet?)"),
        (
            ["--frobnicate", "x.py"],
            "--frobnicate; memlimits run --help lists them\n",
        ),
        (["-z", "x.py"], "unknown option: -z"),
        (["-Oz", "x.py"], "unknown option: -Oz"),
        (["-V"], "unknown option: -V"),
        (["--memory-limit=512", "x.py"], "512 bytes, or MiB? Write 512B or 512MiB"),
    ],
)
def test_wrong_usage(capsys, words, message):
    with pytest.raises(SystemExit) as refusal:
        cli.main(["run", *words])
    assert refusal.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: memlimits run [options] script.py [ARGS...]\n")
    assert message in error.splitlines(keepends=True)[-1]


def test_program_beyond_a_strict_limit(run):
    done = run(ONE_GIB, "--memory-limit", "200MiB", "--policy", "strict", code=1)
    assert done.stdout == ""
    assert "ArrayMemoryError: Unable to allocate 1.00 GiB" in done.stderr
    assert "memlimits/cli" not in done.stderr
    numbers = done.stderr[done.stderr.index("memlimits: last refusal: ") :]
    assert "asked for 1 GiB (1,073,741,824 bytes), blocked by: limit" in numbers
    assert "limit 200 MiB (209,715,200 bytes)" in numbers
    assert re.search(r"in use .*: active .*, cache .*, slack ", numbers)


def test_program_within_a_strict_limit(run):
    done = run(ONE_GIB, "--memory-limit", "2GiB", "--policy", "strict")
    assert done.stdout == f"{2**30}\n"
    # Nobody touched it.
    begin = r"memlimits: peak: governed 1(\.0\d)? GiB, resident \d\d(\.\d+)? MiB, "
    assert re.match(begin + r"limit 2 GiB \(strict\)\nmemlimits: cache hits ", done.stderr)
    assert "refusals 0\n" in done.stderr
    assert "last refusal" not in done.stderr


def test_program_beyond_a_guideline(run):
    done = run(ONE_GIB, "--memory-limit", "200MiB", "--policy", "guideline")
    assert done.stdout == f"{2**30}\n"
    assert "limit 200 MiB (guideline)" in done.stderr
    assert "allocations over the limit: 1\n" in done.stderr


def test_program_that_survives_a_refusal(run):
    source = """
import numpy
held = numpy.ones(50 * 2**20, dtype=numpy.uint8)
for n in range(2):
    try:
        numpy.empty((300 + n) * 2**20, dtype=numpy.uint8)
    except MemoryError as error:
        print(type(error).__mro__[1].__name__)
print(held.sum())
"""
    done = run(source, "--memory-limit", "200MiB", "--report", "report.json")
    assert done.stdout == f"MemoryError\nMemoryError\n{50 * MIB}\n"
    assert "refusals 2\n" in done.stderr
    assert "asked for 301 MiB (315,621,376 bytes)" in done.stderr
    active = re.search(r"active ([\d.]+) MiB", done.stderr)
    assert 50 <= float(active[1]) < 60


def test_later_threads_and_exit_callbacks_are_governed(run):
    source = """
import atexit, numpy, threading
from memlimits import get_active_memory
def allocate(what):
    before = get_active_memory()
    array = numpy.empty(10 * 2**20, dtype=numpy.uint8)
    print(what, get_active_memory() - before >= array.nbytes)
def work():
    threading.main_thread().join()
    allocate("thread")
threading.Thread(target=work).start()
atexit.register(allocate, "exit")
raise SystemExit(3)
"""
    assert run(source, code=3).stdout == "thread True\nexit True\n"


def test_wired_limit_above_the_maximum(run):
    maximum = memlimits.device_info()["max_recommended_working_set_size"]
    done = run("print('never')", f"--wired-limit={maximum + 1}", code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("memlimits: ")
    assert f"({maximum:,} bytes) (max_recommended_working_set_size)" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("print('never')", "--wired-limit=infinity", code=2)
    assert "a wired limit of infinity is above the system's " in done.stderr


def test_a_warning_about_a_limit_is_one_line(monkeypatch, capfd):
    def set_wired_limit(limit):
        warnings.warn(f"cannot wire {limit}", RuntimeWarning, stacklevel=2)

    monkeypatch.setattr(memlimits, "set_wired_limit", set_wired_limit)
    options = SimpleNamespace(
        memory_limit=None,
        cache_limit=None,
        wired_limit=77,
        policy=None,
        count=None,
        holders=0,
        pool=None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cli_run._set_limits(options, "numpy")
    assert capfd.readouterr().err == "memlimits: warning: cannot wire 77\n"


@pytest.mark.parametrize(
    ("options", "timeout"),
    [([], 60), *((["--timeout", text], float(text)) for text in ("2.5", "0", "1e9"))],
)
def test_the_timeout_is_that_of_the_option(run, options, timeout):
    program = "from memlimits import memory; print(memory.get_memory_policy().timeout)"
    assert float(run(program, "--policy", "wait", *options).stdout) == timeout


@pytest.mark.parametrize("text", ["", "-1", "x", "nan", "inf", "1e10", "-m", "5s"])
def test_what_is_no_time_is_refused(capsys, text):
    with pytest.raises(SystemExit) as refusal:
        cli.main(["run", "--policy=wait", "--timeout", text, "program.py"])
    assert refusal.value.code == 2
    error = capsys.readouterr().err
    assert f"argument --timeout: invalid time {text!r}" in error
    assert "write seconds, from 0 to 1000000000" in error


@pytest.mark.parametrize("options", [[], ["--policy=strict"], ["--memory-limit=1GiB"]])
@pytest.mark.parametrize("timeout", [0, 5])
def test_a_timeout_is_refused_where_nothing_waits(capsys, options, timeout):
    with pytest.raises(SystemExit) as refusal:
        cli.main(["run", *options, f"--timeout={timeout}", "program.py"])
    assert refusal.value.code == 2
    assert "argument --timeout: only --policy wait takes it" in capsys.readouterr().err


def options(*words, **environ):
    return cli_options.read(words, environ)


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("MEMORY_LIMIT", "2GiB", 2 << 30),
        ("CACHE_LIMIT", "5M", 5 << 20),
        ("WIRED_LIMIT", "0", 0),
        ("POLICY", "strict", "strict"),
        ("REPORT", "a b.json", "a b.json"),
        ("QUIET", "1", True),
        ("QUIET", "0", False),
    ],
)
def test_a_variable_stands_for_an_option_that_is_not_given(variable, text, value):
    name = variable.lower()
    assert getattr(options("x.py", **{f"MEMLIMITS_{variable}": text}), name) == value
    default = getattr(options("x.py"), name)
    assert getattr(options("x.py", **{f"MEMLIMITS_{variable}": ""}), name) == default
    if variable != "QUIET":
        given = {"POLICY": "wait", "REPORT": "c"}.get(variable, "3MiB")
        word = f"--{name.replace('_', '-')}={given}"
        chosen = getattr(options(word, "x.py", **{f"MEMLIMITS_{variable}": "nonsense"}), name)
        assert chosen == {"POLICY": "wait", "REPORT": "c"}.get(variable, 3 << 20)


@pytest.mark.parametrize(
    ("environ", "words", "message"),
    [
        ({"MEMORY_LIMIT": "lots"}, [], "variable MEMLIMITS_MEMORY_LIMIT: invalid size 'lots'"),
        ({"CACHE_LIMIT": "512"}, [], "variable MEMLIMITS_CACHE_LIMIT: 512 bytes, or MiB?"),
        ({"POLICY": "lax"}, [], "variable MEMLIMITS_POLICY: invalid policy 'lax'"),
        ({"TIMEOUT": "x"}, ["--policy=wait"], "variable MEMLIMITS_TIMEOUT: invalid time 'x'"),
        ({"TIMEOUT": "x"}, [], "variable MEMLIMITS_TIMEOUT: invalid time 'x'"),
        ({}, ["--report="], "argument --report: invalid file '': write its name"),
        ({"REPORT": "-"}, [], "variable MEMLIMITS_REPORT: invalid file '-': write its name"),
        ({"MEMORY_LIMIT": "150%"}, [], "invalid size '150%': more than 100%: write it as"),
        ({"POLICY": "strict"}, ["--timeout=5"], "argument --timeout: only --policy wait takes it"),
        ({"QUIET": "yes"}, [], "variable MEMLIMITS_QUIET: invalid value 'yes': write 1 for yes"),
    ],
)
def test_a_variable_that_is_wrong_is_named(environ, words, message):
    environ = {f"MEMLIMITS_{name}": text for name, text in environ.items()}
    with pytest.raises(cli_options.UsageError, match=re.escape(message)):
        options(*words, "x.py", **environ)


def test_a_timeout_of_the_environment():
    both = {"MEMLIMITS_TIMEOUT": "2.5", "MEMLIMITS_POLICY": "wait"}
    assert options("x.py", **both).timeout == 2.5
    assert options("--policy=wait", "x.py", MEMLIMITS_TIMEOUT="2.5").timeout == 2.5
    assert options("--timeout=3", "x.py", MEMLIMITS_POLICY="wait").timeout == 3
    assert options("--policy=strict", "x.py", **both).timeout is None
    assert options("x.py", MEMLIMITS_TIMEOUT="2.5").timeout is None


def test_a_variable_that_is_wrong_shows_no_usage(run):
    done = run("", env={**os.environ, "MEMLIMITS_POLICY": "lax"}, code=2)
    assert done.stderr.startswith("memlimits: variable MEMLIMITS_POLICY: invalid policy 'lax'")


def test_a_variable_that_is_not_known_is_named_once(run):
    environ = {"MEMLIMITS_MEMORY_LIMT": "300MiB", "MEMLIMITS_DEVICE": "host"}
    done = run("print(1)", "-B", env={**os.environ, **environ})
    warning = "memlimits: warning: variable MEMLIMITS_MEMORY_LIMT is not known (did you mean "
    warning += "MEMLIMITS_MEMORY_LIMIT?)\n"
    assert done.stdout == "1\n"
    assert done.stderr.startswith(warning)
    assert done.stderr.count("warning") == 1


def test_variables_reach_the_program_s_limits(run):
    environ = {"MEMLIMITS_MEMORY_LIMIT": "300MiB", "MEMLIMITS_POLICY": "guideline"}
    done = run(SHOW, "-B", env={**os.environ, **environ})
    assert json.loads(done.stdout) == [300 * MIB, 300 * MIB, 0, "guideline"]


def test_variables_are_read_by_run_only(tmp_path):
    code = "import memlimits; print(memlimits.get_memory_limit(), memlimits.stats().policy)"
    environ = {"MEMLIMITS_MEMORY_LIMIT": "300MiB", "MEMLIMITS_POLICY": "lax"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environ}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (f"{DEFAULT} guideline\n", "")


@pytest.mark.parametrize(
    ("words", "python", "program"),
    [
        (["-O", "x.py", "-O"], ["-O"], ["x.py", "-O"]),
        (["-X", "dev", "-Wignore", "x.py"], ["-X", "dev", "-Wignore"], ["x.py"]),
        (["-OBX", "a=b", "x.py"], ["-OBX", "a=b"], ["x.py"]),
        (["-uBm", "json.tool", "-h"], ["-uB"], ["-m", "json.tool", "-h"]),
        (["-Ic", "1", "2"], ["-I"], ["-c", "1", "2"]),
        (["-Oc1"], ["-O"], ["-c", "1"]),
        (["-mjson", "-m"], [], ["-m", "json", "-m"]),
        (["--check-hash-based-pycs", "never", "-"], ["--check-hash-based-pycs", "never"], ["-"]),
        (["-q", "--", "-x.py", "a"], ["-q"], ["-x.py", "a"]),
        (["-i", "--quiet", "-b", "x"], ["-i", "-b"], ["x"]),
    ],
)
def test_options_of_the_interpreters(words, python, program):
    read = options(*words)
    assert (read.python, read.program) == (python, program)


def test_options_of_the_interpreters_and_ours_hold_together(run):
    done = run(SHOW, "-O", "--memory-limit", "200MiB", "-X", "dev", "--cache-limit=1MiB")
    assert json.loads(done.stdout) == [200 * MIB, MIB, 0, "strict"]
    assert "limit 200 MiB (strict)" in done.stderr


def test_an_option_that_the_interpreter_refuses(run):
    done = run("print('never')", "-X", "int_max_str_digits=nonsense", code=1)
    assert done.stdout == ""
    assert "int_max_str_digits" in done.stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pytest", "\nmemlimits: To run the module: memlimits run -m pytest\n"),
        ("timeit", "\nmemlimits: To run the module: memlimits run -m timeit\n"),
        ("email", "No such file or directory\n"),  # a package that cannot be run
        ("nonesuch", "No such file or directory\n"),
        ("nonesuch.py", "No such file or directory\n"),
        ("./pytest", "No such file or directory\n"),
        ("sh", "\nmemlimits: 'sh' is a command, and what runs here is Python: a script, -m or "
               "-c\n"),
        ("python3", "\nmemlimits: Leave 'python3' out: its options and the program follow "
                    "`memlimits run` directly\n"),
    ],
)  # fmt: skip
def test_a_script_that_is_not_there_may_be_something_else(run, name, hint):
    error = run("", program=[name, "x.py"], code=2).stderr
    assert error.startswith("memlimits: can't open file ")
    assert error.endswith(hint)


def test_usage_is_on_standard_output_where_it_is_asked_for(capsys):
    with pytest.raises(SystemExit) as leaves:
        cli.main(["run", "--quiet", "-h", "x.py"])
    assert leaves.value.code == 0
    said = capsys.readouterr()
    assert said.out == cli_help.of_run()
    assert said.err == ""
    for name in cli_options._WITH_VALUE:
        assert f"  {name} " in said.out

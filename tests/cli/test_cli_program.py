"""Programs of every form under `memlimits run` and under the interpreter alone."""

import os
import py_compile
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from support.commands import RUN, assert_same, execute, without_report, write

pytestmark = pytest.mark.usefixtures("buffered_streams")


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["a", "b c", ""],
        ["-x", "--timeout", "1", "--help", "-m", "json"],
        ["--"],
        ["--", "-x", "--", "y"],
        ["-", "-h", "--report=x", "--version"],
    ],
)
@pytest.mark.parametrize("how", [["./show.py"], ["-m", "show"], ["-mshow"]], ids="_".join)
def test_arguments_are_passed_on(tmp_path, how, args):
    write(tmp_path / "show.py", "import sys; print(sys.argv)")
    plain = assert_same(tmp_path, *how, *args)
    assert repr(args)[1:].encode() in plain.stdout


INTERRUPTED = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("", 0),
        ("import sys; sys.exit()", 0),
        ("import sys; sys.exit(None)", 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit(-1)", 255),
        ("import sys; sys.exit(256 + 7)", 7),
        ("import sys; sys.exit(True)", 1),
        ("import sys; sys.exit('so long')", 1),
        ("import sys; sys.exit((1, 'two'))", 1),
        ("raise SystemExit", 0),
        ("exit(4)", 4),
        ("class Quit(SystemExit): pass\nraise Quit(9)", 9),
        ("def f():\n  try: 1 / 0\n  finally: raise SystemExit(5)\nf()", 5),
        ("raise ValueError('no')", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        (INTERRUPTED, -signal.SIGINT),
        # From 3.14 on as what it is a kind of.
        (
            "class Stop(KeyboardInterrupt): pass\nraise Stop",
            -signal.SIGINT if sys.version_info >= (3, 14) else 1,
        ),
        ("raise GeneratorExit", 1),
        ("import sys; sys.stdout.close()", 0),
        ("import sys; sys.stderr.close()", 0),
        ("import sys; sys.stdout = sys.stderr = None", 0),
        ("import atexit; atexit.register(lambda: 1 / 0)", 0),
    ],
)
def test_exit_status(tmp_path, source, status):
    write(tmp_path / "program.py", source)
    assert assert_same(tmp_path, "program.py").returncode == status


@pytest.mark.parametrize(
    ("end", "status"), [("os._exit(7)", 7), ("os.kill(os.getpid(), 15)", -15), ("os.abort()", -6)]
)
def test_a_program_that_ends_at_once_does_so(tmp_path, end, status):
    write(tmp_path / "program.py", f"import os; {end}")
    ours = execute(*RUN, "program.py", cwd=tmp_path)
    assert (ours.returncode, ours.stderr) == (status, b"")


SHOW_MAIN = """
    import sys
    import __main__

    def show(value):
        if type(value).__name__.endswith("Loader") or type(value).__name__ == "zipimporter":
            return type(value), vars(value) if hasattr(value, "__dict__") else value
        return value

    for name, value in list(globals().items()):
        print(name, "=", show(value))
    print(__main__ is sys.modules["__main__"], vars(__main__) is globals())
    print(type(__main__), repr(__main__))
    print(sys.argv, sys.path)
    print(sys.exc_info(), sys.flags)
    try:
        import sibling
        print(sibling)
    except ImportError as error:
        print(error)
    """


@pytest.fixture
def forms(tmp_path):
    """A directory with one program in every form that the interpreter runs."""
    script = write(tmp_path / "there" / "script.py", SHOW_MAIN)
    write(tmp_path / "there" / "sibling.py", "")
    write(tmp_path / "sibling.py", "")
    write(tmp_path / "package" / "__init__.py", "import sys; print('package', sys.argv)")
    write(tmp_path / "package" / "__main__.py", SHOW_MAIN)
    write(tmp_path / "package" / "module.py", "from . import __name__ as n; print(n)\n")
    write(tmp_path / "package" / "deep.py", SHOW_MAIN)
    write(tmp_path / "plain" / "empty.txt", "")
    write(tmp_path / "failing" / "__init__.py", "1 / 0")
    write(tmp_path / "lacking" / "__init__.py", "import nonesuch")
    write(tmp_path / "raising" / "__main__.py", "def f():\n    1 / 0\nf()\n")
    write(tmp_path / "no_suffix", SHOW_MAIN)
    write(tmp_path / "sp\u00e4ce in name.py", SHOW_MAIN)
    (tmp_path / "link.py").symlink_to(script)
    (tmp_path / "linked").symlink_to("there")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))\n")
    (tmp_path / "bom.py").write_bytes(b"\xef\xbb\xbfprint(ascii('\xc3\xa9'))\r\n")
    py_compile.compile(script, tmp_path / "compiled.pyc", doraise=True)
    (tmp_path / "compiled").write_bytes((tmp_path / "compiled.pyc").read_bytes())
    for name, source in {"program.zip": SHOW_MAIN, "raising.zip": "def f(): 1 / 0\nf()"}.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("__main__.py", textwrap.dedent(source))
            archive.writestr("sibling.py", "")
    (tmp_path / "app").write_bytes(b"#!python\n" + (tmp_path / "program.zip").read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["there/script.py"],
        ["./there/../there//script.py", "-x"],
        ["link.py"],
        ["linked/script.py"],
        ["no_suffix"],
        ["sp\u00e4ce in name.py"],
        ["latin.py"],
        ["bom.py"],
        ["compiled.pyc"],
        ["compiled"],
        ["package", "a"],
        ["package/"],
        ["program.zip", "-x"],
        ["app"],
        ["raising"],
        ["raising.zip"],
        ["plain"],
        ["-m", "package", "-x"],
        ["-m", "package.module"],
        ["-m", "package.deep", "a"],
        ["-m", "nonesuch"],
        ["-m", "package.nonesuch"],
        ["-m", "plain"],
        ["-m", "failing"],
        ["-m", "failing.module"],
        ["-m", "lacking"],
        ["-m", "package.module.more"],
        ["-m", "package.deep.py"],
        ["-m", "./package"],
        ["-m", ""],
        ["-m", "json.tool", "-h"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("safe_path", ["", "1"])
def test_every_form_of_program(forms, words, safe_path):
    env = {**os.environ, "PYTHONSAFEPATH": safe_path, "PYTHONIOENCODING": "utf-8"}
    assert_same(forms, *words, env=env)


def test_absolute_script_from_elsewhere(forms, tmp_path_factory):
    plain = assert_same(tmp_path_factory.mktemp("elsewhere"), forms / "there" / "script.py")
    assert b"sibling.py" in plain.stdout


def test_script_of_a_pipe():
    plain = assert_same("/", "/dev/stdin", input=b"import sys; print(sys.argv, __file__); 1 / 0\n")
    assert plain.stdout == b"['/dev/stdin'] /dev/stdin\n"


@pytest.mark.parametrize("safe_path", ["", "1"])
def test_installed_command_leaves_no_trace_in_the_path(forms, safe_path):
    """What a package installer puts into ``bin`` is a script of these lines."""
    command = write(
        forms / "bin" / "memlimits", "import sys\nfrom memlimits.cli import main\nsys.exit(main())"
    )
    env = {**os.environ, "PYTHONSAFEPATH": safe_path}
    for words in (["there/script.py", "-x"], ["-m", "package"], ["program.zip"], ["raising"]):
        assert_same(forms, *words, command=(command, "run"), env=env)


@pytest.mark.parametrize("name", ["nonesuch.py", "no/such.py", "there/script.py/x", "./-"])
def test_script_that_does_not_exist(forms, name):
    plain = execute(name, cwd=forms)
    ours = execute(*RUN, "--", name, cwd=forms)
    assert ours.returncode == plain.returncode == 2
    message = plain.stderr.partition(b": ")[2]
    assert ours.stderr == b"memlimits: " + message
    assert ours.stdout == b""


@pytest.fixture
def without_directory(tmp_path):
    """Runs a program in a working directory that is gone, without and with `memlimits run`."""

    def without_directory(source, **env):
        script = write(tmp_path / "program.py", source)
        vanish = "mkdir gone && cd gone && rmdir ../gone"
        return [
            subprocess.run(
                ["sh", "-c", f'{vanish} && exec "$@"', "sh", sys.executable, *words, script],
                cwd=tmp_path,
                env={**os.environ, "PYTHONSAFEPATH": "", **env},
                capture_output=True,
                timeout=60,
            )
            for words in ((), RUN)
        ]

    return without_directory


def test_deleted_working_directory(without_directory):
    plain, ours = without_directory("import sys; print(sys.argv, sys.path[0])")
    assert plain.returncode == ours.returncode == 0
    assert plain.stdout == ours.stdout


def test_deleted_working_directory_and_the_rest_of_the_path(without_directory, tmp_path):
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(tmp_path)]))
    plain, ours = without_directory("import sys; print(sys.path)", PYTHONPATH=path)
    assert plain.stdout == ours.stdout


def test_helpers_notice_a_missing_report():
    with pytest.raises(AssertionError):
        without_report(b"nothing of ours\n")
    with pytest.raises(AssertionError):
        without_report(b"memlimits: peak: governed 0 B\nprinted after the report\n")
    assert Path(sys.executable).exists()

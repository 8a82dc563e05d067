"""What there is in an environment that has no NumPy."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest

import memlimits
from support import extensions

needs_governed_objects = pytest.mark.skipif(
    "t" in sys.abiflags, reason="without the GIL Python's objects are not governed"
)
WITHOUT = "needs NumPy: pip install numpy"
PYTEST = ("pytest", "iniconfig", "packaging", "pluggy", "pygments")


def place(name):
    """Where a package or module lies."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A Python that has memlimits and pytest, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": folder, "platbase": folder}))
    start = place("_memlimits_start")
    paths = {place("memlimits"), start, *start.parent.glob("memlimits.[ps]t*")}
    for name in PYTEST:
        package = distribution(name)
        tops = {file.parts[0] for file in package.files} - {"..", "__pycache__"}
        paths |= {Path(package.locate_file(top)) for top in tops}
    for path in paths:
        (site / path.name).symlink_to(path)
    return folder / "bin/python"


def run(environment, *words, **variables):
    left = ("LD_PRELOAD", "PYTHONPATH", "PYTHONHOME")
    environ = {name: value for name, value in os.environ.items() if name not in left}
    return subprocess.run(
        [environment, "-W", "error", *words],
        env=environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def passes(environment):
    def passes(program, *words, **variables):
        done = run(environment, *words, "-c", textwrap.dedent(program), **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return passes


def test_there_is_none(environment):
    done = run(environment, "-c", "import numpy")
    # From 3.15 on it asks whether another was meant.
    assert "\nModuleNotFoundError: No module named 'numpy'" in done.stderr


def test_blocks_limits_and_figures(passes):
    passes("""
        import memlimits
        before = memlimits.set_memory_limit(64 << 20)
        memlimits.set_memory_policy("strict")
        with memlimits.allocate(1 << 20) as block, memlimits.budget("part", 2 << 20):
            memoryview(block)[:2] = b"ab"
            assert memlimits.get_active_memory() == 1 << 20
            try:
                memlimits.allocate(3 << 20)
                raise SystemExit("given")
            except memlimits.MemoryLimitError as error:
                assert error.blocked_by == "budget", error.blocked_by
        assert memlimits.stats().refusals == 1
        assert memlimits.snapshot().stats.refusals == 1
    """)


def test_each_function_that_needs_it_says_how_to_install_it(passes):
    passes(f"""
        import memlimits
        from memlimits import empty, govern_numpy, zeros
        for name, call in [
            ("empty", lambda: empty(3)),
            ("zeros", lambda: zeros((3, 3), order="F")),
            ("govern_numpy", lambda: govern_numpy(aligned=False)),
        ]:
            try:
                call()
                raise SystemExit(name)
            except ImportError as error:
                assert str(error) == f"memlimits.{{name}} {WITHOUT}", error
                assert type(error.__cause__) is ModuleNotFoundError
                assert error.__cause__.name == "numpy"
    """)


def test_the_package_can_be_looked_through(passes):
    passes("""
        import inspect, pydoc
        import memlimits
        members = dict(inspect.getmembers(memlimits))
        assert {*memlimits.__all__} <= members.keys()
        assert "which is not installed" in pydoc.render_doc(members["zeros"])
        from memlimits import *
        assert allocate is memlimits.allocate
    """)


def test_functions_taken_before_numpy_was_there_find_it(passes):
    """As in a notebook whose next cell installs it."""
    passes(
        f"""
        import sys
        from memlimits import zeros
        sys.path.append({str(place("numpy").parent)!r})
        import memlimits
        array = zeros(300, "int8")
        assert array.tolist() == [0] * 300 and memlimits.get_active_memory() >= 300
        assert memlimits.zeros is not zeros
        """,
        OPENBLAS_NUM_THREADS="1",
    )


def test_a_numpy_that_lacks_something_is_not_said_to_be_missing(passes, tmp_path):
    (tmp_path / "numpy.py").write_text("import no_such_module\n")
    passes(
        """
        import memlimits
        try:
            memlimits.empty
        except ModuleNotFoundError as error:
            assert error.name == "no_such_module"
        else:
            raise SystemExit("found")
        """,
        PYTHONPATH=str(tmp_path),
    )


@needs_governed_objects
@pytest.mark.host
def test_pythons_objects_are_governed(passes):
    passes("""
        import memlimits
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(32 << 20)
        with memlimits.govern_python():
            try:
                list(range(10_000_000))
                raise SystemExit("given")
            except MemoryError as error:
                assert "memory limit 32 MiB" in error.__notes__[0]
    """)


PROGRAM = """
try:
    data = bytearray(200 << 20)
except MemoryError as error:
    print(error.__notes__[0])
"""


@needs_governed_objects
@pytest.mark.host
@pytest.mark.parametrize("level", ["python", "all"])
def test_the_command_governs_the_rest(environment, level):
    words = ["run", "--memory-limit", "100MiB", "--count", "given", "--govern", level]
    done = run(environment, "-m", "memlimits", *words, "-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("memlimits: refused 200 MiB"), done.stdout + done.stderr
    assert "refusals 1" in done.stderr
    assert "NumPy" not in done.stderr


@pytest.mark.parametrize("words", [["run", "--govern", "numpy", "-c", "print(7)"], ["info"]])
def test_the_command_does_without(environment, words):
    done = run(environment, "-m", "memlimits", *words)
    assert done.returncode == 0, done.stderr
    assert "7" in done.stdout
    assert "Error" not in done.stderr


def test_the_c_interface(passes, tmp_path):
    extensions.build(tmp_path, "in_c.c")
    passes(
        """
        import in_c
        start = in_c.malloc(1000)
        assert start
        in_c.free(start)
        """,
        PYTHONPATH=str(tmp_path),
    )


@needs_governed_objects
@pytest.mark.host
def test_tests_have_limits(environment, tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_much():\n"
        "    list(range(10_000_000))\n"
        "@pytest.mark.fail_allocations\n"
        "def test_in_turn():\n"
        "    import memlimits\n"
        "    try:\n"
        "        memlimits.allocate(100)\n"
        "    except MemoryError:\n"
        "        pass\n"
    )
    words = ["-m", "pytest", "-p", "memlimits.pytest", "-p", "no:cacheprovider"]
    done = run(environment, *words, "--memory-limit", "32MiB", str(tmp_path))
    assert "limit of a test: 32 MiB; counts Python\n" in done.stdout, done.stdout + done.stderr
    assert "memory limit" in done.stdout
    assert "1 failed, 1 passed" in done.stdout


def test_this_environment_has_it_and_its_functions_are_the_adapters_own():
    assert memlimits.zeros(3).tolist() == [0, 0, 0]
    assert memlimits.zeros.__doc__.startswith("Return a new array")

"""What is used for the first time without a free file descriptor, or in a signal's handler."""

import ast
import textwrap

import pytest

import memlimits
from support.process import TAKE_ALL_DESCRIPTORS, execute, run

# Each call in a child of its own, in which nothing was used before: without a free descriptor, and
# where that raises once more with some. Nothing is imported that a call may be in want of.
CALLS = """
    import os, resource, sys, memlimits

    def outcome(call):
        try:
            result = call()
        except BaseException as error:
            words = [w for w in str(error).split() if not any(map(str.isdigit, w))]
            return f"{type(error).__name__}: {' '.join(words)}"
        return type(result).__name__

    def in_a_child(call, taken):
        reads, writes = pipe
        child = os.fork()
        if child == 0:
            if taken:
                take_all_descriptors()
            os.write(writes, outcome(call).encode() + b"#")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        return os.read(reads, 1 << 16).decode().rstrip("#")

    def compare(what, call):
        seen[what] = without = in_a_child(call, True)
        if ": " in without and (plain := in_a_child(call, False)) != without:
            different[what] = plain, without

    def call_method(make, name):
        made = getattr(make(), name)
        return made() if callable(made) else made

    def compare_methods(make):
        made = make()
        kind = type(made)
        names = {n for n in dir(made) if getattr(kind, n, 0) is not getattr(object, n, 1)}
        if kind.__name__ == "AutoTrim":
            made.close()  # no child has its thread
        for name in names - {"__class__"} | {"__call__"}:
            compare(f"{kind.__name__}.{name}", lambda: call_method(make, name))

    pipe, different, seen = os.pipe(), {}, {}
"""

ARGUMENTS = {
    "Budget": "('b', 1 << 20)",
    "Buffer": "(100)",
    "Fit": "(True, None)",
    "MemoryLimitError": "('text')",
    "Reservation": "(100)",
    "allocate": "(100)",
    "budget": "('b', 1 << 20)",
    "empty": "(100)",
    "get_array_buffer_size": "(memlimits.allocate(100))",
    "limits": "(memory=1 << 20)(lambda: 1)()",
    "reserve": "(100)",
    "set_cache_limit": "(100)",
    "set_holder_sampling": "(1 << 20)",
    "set_idle_timeout": "(1, 'return')",
    "set_memory_count": "('process')",
    "set_memory_limit": "(100 << 20)",
    "set_memory_policy": "('wait', timeout=1)",
    "set_pressure_trim": "(1 << 20, 50)",
    "set_refusal_snapshots": "(True)",
    "set_wired_limit": "(1 << 20)",
    "unwire": "(memlimits.allocate(1 << 20, wired=True))",
    "wire": "(memlimits.allocate(1 << 20))",
    "would_fit": "(100)",
    "zeros": "(100)",
}
FUNCTIONS = {name: f"memlimits.{name}{ARGUMENTS.get(name, '()')}" for name in memlimits.__all__}
NUMPYS = ("empty", "zeros", "govern_numpy")
# It has a module of its own: only programs that start others need it, and that takes descriptors.
OPENS = ("govern_children", "join")
OTHERS = {
    "refusal": "memlimits.allocate(1 << 50)",
    "wired": "memlimits.allocate(1 << 20, wired=True)",
    "dlpack": "memlimits.allocate(100).__dlpack__()",
    "budget refused": "(b := memlimits.budget('b', 10)).__enter__() and memlimits.allocate(100)",
    "no such name": "memlimits.nothing",
    "not a callable": "memlimits.limits(memory=1)(1)",
    "a coroutine": "memlimits.limits(memory=1 << 20)(coroutine)().send(None)",
    "trims": "memlimits.auto_trim(0.001).close()",
}  # fmt: skip
OBJECTS = [
    "memlimits.MemoryLimitError('text')",
    "memlimits.MemoryLimitError(6, 5, 4, 3, 2, 1, 'limit')",
    "memlimits.allocate(100)",
    "memlimits.auto_trim(1000)",
    "memlimits.budget('b', 1 << 20)",
    "memlimits.effective_limit()",
    "memlimits.limits(memory=1 << 20)",
    "memlimits.reserve(100)",
    "memlimits.snapshot()",
    "memlimits.stats()",
    "memlimits.would_fit(100)",
]


def compared(calls, objects, before="", first=""):
    lines = [f"compare({what!r}, lambda: {call})" for what, call in calls.items()]
    lines += [f"compare_methods(lambda: {made})" for made in objects]
    parts = [CALLS + TAKE_ALL_DESCRIPTORS, before, "\n".join(lines), "print([different, seen])"]
    done = execute("\n".join([first, *map(textwrap.dedent, parts)]))
    assert done.returncode == 0, done.stderr
    different, seen = ast.literal_eval(done.stdout.splitlines()[0])
    assert different == {}
    return seen


@pytest.mark.host
def test_every_function_without_a_free_descriptor():
    functions = {name: call for name, call in FUNCTIONS.items() if name not in (*NUMPYS, *OPENS)}
    seen = compared(functions | OTHERS, [], "async def coroutine(): pass")
    errors = {what for what, kind in seen.items() if ": " in kind}
    assert errors == {
        "Budget", "Buffer", "Reservation", "refusal", "budget refused", "no such name",
        "not a callable", "a coroutine", "govern_malloc",
    }  # fmt: skip


@pytest.mark.host
def test_every_method_without_a_free_descriptor():
    assert len(compared({}, OBJECTS)) > 100


@pytest.mark.host
@pytest.mark.parametrize("where", ["before", "first"])
def test_numpys_functions_without_a_free_descriptor(where):
    """NumPy was imported, before memlimits or after it."""
    seen = compared({name: FUNCTIONS[name] for name in NUMPYS}, [], **{where: "import numpy\n"})
    assert seen == {"empty": "ndarray", "zeros": "ndarray", "govern_numpy": "Governing"}
    methods = compared({}, ["memlimits.govern_numpy()"], **{where: "import numpy\n"})
    assert (
        methods.items()
        >= {"Governing.close": "NoneType", "Governing.__enter__": "Governing"}.items()
    )


IMPORT_IN_C = """
    import ctypes
    module = ctypes.pythonapi.PyImport_ImportModule
    module.restype = ctypes.py_object
    def functions(name):
        return getattr(module(b"memlimits._malloc"), name)
"""


@pytest.mark.host
def test_the_import_in_c_without_a_free_descriptor():
    names = ("functions", "functions_with_size", "__pyx_capi__")
    seen = compared({name: f"functions({name!r})" for name in names}, [], IMPORT_IN_C)
    assert seen == {
        "functions": "PyCapsule",
        "functions_with_size": "PyCapsule",
        "__pyx_capi__": "dict",
    }


@pytest.mark.core
def test_who_looks_through_all_modules_makes_nothing():
    run("""
        for module in list(sys.modules.values()):
            for name in ("__warningregistry__", "__file__", "__path__", "load_tests", "empty"):
                if module is not memlimits:
                    getattr(module, name, None)
        made = sys.modules["memlimits._malloc"]
        assert not hasattr(made, "__pyx_unknown__") and "functions" not in dir(made)
        assert made.functions and "functions" in dir(sys.modules["memlimits._malloc"])
        assert memlimits._malloc is sys.modules["memlimits._malloc"] is not made
        assert made.__pyx_capi__ is memlimits._malloc.__pyx_capi__
        assert "numpy" not in sys.modules
    """)


@pytest.mark.host
def test_numpy_itself_needs_one_and_is_there_as_soon_as_there_is():
    run("""
        taken = take_all_descriptors()
        for name in ("empty", "govern_numpy", "zeros"):
            try:
                getattr(memlimits, name)
            except OSError as error:
                assert "Too many open files" in str(error) and "numpy" in error.filename
            else:
                raise AssertionError(name)
        for descriptor in taken:
            os.close(descriptor)
        with memlimits.govern_numpy():
            assert memlimits.zeros(1000).sum() == 0
    """)


@pytest.mark.host
def test_a_first_use_that_failed_is_made_anew():
    run("""
        import types
        sys.modules["numpy"] = types.ModuleType("numpy")
        for _ in range(2):
            try:
                memlimits.empty
            except (AttributeError, ImportError) as error:
                assert "memlimits" not in str(error), error
            else:
                raise AssertionError
        del sys.modules["numpy"]
        with memlimits.govern_numpy():
            assert memlimits.zeros(1000).sum() == 0
    """)


USES = {
    "limits": "memlimits.limits(memory=1 << 40)(lambda: 1)()",
    "auto_trim": "memlimits.auto_trim(1000).close()",
    "govern_numpy": "memlimits.govern_numpy().close()",
    "empty": "memlimits.empty(3)",
    "stats": "memlimits.stats()",
    "effective_limit": "memlimits.effective_limit()",
}


@pytest.mark.host
@pytest.mark.parametrize("use", USES)
def test_a_handler_comes_at_any_step_of_the_first_use(use):
    """And uses the same for the first time, too. Each step in a child of its own."""
    run(f"""
        import numpy

        def use():
            {USES[use]}

        def handler(*_):
            try:
                use()
            except RuntimeError as error:
                assert "auto_trim runs already" in str(error)

        def use_until(last):
            steps = 0
            def step(frame, event, argument):
                nonlocal steps
                steps += 1
                if steps == last:
                    sys.settrace(None)
                    signal.raise_signal(signal.SIGUSR2)
                return step
            sys.settrace(step)
            use()
            return sys.gettrace() is not None

        signal.signal(signal.SIGUSR2, handler)
        code, last = 0, 0
        while code == 0:
            last += 1
            child = os.fork()
            if child == 0:
                os._exit(33 if use_until(last) else 0)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == 33 and last > 3, (code, last)
    """)

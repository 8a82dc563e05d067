"""Other interpreters of the process: memlimits is the main one's; its memory is every thread's."""

import sys
import textwrap

import pytest

from support.process import execute, run

# What a program may use. `in_another` runs code in an interpreter of its own, on this thread.
IN_ANOTHER = """
    def in_another(code, isolated):
        if sys.version_info >= (3, 13):
            import _interpreters
            made = _interpreters.create("isolated" if isolated else "legacy")
            error = _interpreters.exec(made, code)
            assert error is None, error.formatted
            _interpreters.destroy(made)
        else:
            import _xxsubinterpreters
            made = _xxsubinterpreters.create(isolated=isolated)
            _xxsubinterpreters.run_string(made, code)
            _xxsubinterpreters.destroy(made)
"""

MORE = """
    def address_of(function):
        from memlimits import _malloc
        capsule = _malloc.__pyx_capi__[function]
        get_name = ctypes.pythonapi.PyCapsule_GetName
        get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        return get(capsule, get_name(capsule))

    # With the GIL given up during the call, and with it held.
    detached = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)
    attached = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)
    release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address_of("free"))
    malloc = address_of("malloc")

    def later(function, *values):
        def when_one_waits():
            while not memory.counters()["waiting"]:
                time.sleep(0.001)
            function(*values)
        # Where the program fails before it waits, it ends all the same.
        thread = threading.Thread(target=when_one_waits, daemon=True)
        thread.start()
        return thread

    def patient():
        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_policy("wait", timeout=50)
        return memlimits.allocate(40 * MIB)
"""


def run_with_more(script):
    run(textwrap.dedent(IN_ANOTHER) + textwrap.dedent(MORE) + textwrap.dedent(script))


KINDS = pytest.mark.parametrize("isolated", [False, True], ids=["shares the GIL", "isolated"])


@KINDS
@pytest.mark.parametrize("first", ["", "import memlimits"], ids=["first", "second"])
@pytest.mark.parametrize("name", ["memlimits", "memlimits._malloc"])
def test_importing_it_there_is_refused_in_a_sentence(isolated, first, name):
    """And the main interpreter has it, before and after."""
    importing = f"""
        try:
            import {name}
        except ImportError as error:
            assert str(error).startswith("memlimits works in the main interpreter only"), error
            assert error.__cause__ is error.__context__ is None
        else:
            raise AssertionError
    """
    done = execute(
        f"""
        {first}
        import sys, threading
        def work():
            in_another({textwrap.dedent(importing)!r}, {isolated})
        {textwrap.indent(textwrap.dedent(IN_ANOTHER), "        ").strip()}
        work()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        import memlimits
        with memlimits.allocate(10):
            print("done")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_and_in_the_workers_of_a_pool_of_interpreters():
    if sys.version_info < (3, 14):
        pytest.skip("there are none")
    run("""
        from concurrent.futures import InterpreterPoolExecutor

        def work():
            import memlimits

        with InterpreterPoolExecutor(1) as pool:
            try:
                pool.submit(work).result()
            except ImportError as error:
                assert "main interpreter only" in str(error)
            else:
                raise AssertionError
        memlimits.allocate(10)
    """)


# ---- whether a thread is attached to Python ----


@KINDS
def test_c_code_without_the_gil_waits_once_there_was_one(isolated):
    run_with_more(f"""
        in_another("pass", {isolated})
        for kind in detached, attached:
            held = patient()
            thread = later(held.release)
            address = kind(malloc)(40 * MIB)
            assert address
            thread.join()
            release(address)
            consistent()
    """)


@KINDS
@pytest.mark.parametrize("kind", ["detached", "attached"])
def test_c_code_of_one_waits(isolated, kind):
    """Another interpreter's thread can run meanwhile, and free."""
    if isolated and sys.version_info[:2] == (3, 12):
        pytest.skip("ctypes cannot be imported there")
    run_with_more(f"""
        held = patient()
        thread = later(held.release)
        with memlimits.budget("b") as budget:
            in_another(f'''if True:
                import ctypes
                attached, detached = ctypes.PYFUNCTYPE, ctypes.CFUNCTYPE
                address = {kind}(ctypes.c_void_p, ctypes.c_size_t)({{malloc}})({{40 * MIB}})
                assert address
                ctypes.CFUNCTYPE(None, ctypes.c_void_p)({{address_of("free")}})(address)
            ''', {isolated})
            assert budget.peak == 0     # it is of another interpreter's contexts
        thread.join()
        consistent()
    """)


@KINDS
def test_a_thread_that_python_never_saw_waits_for_no_gil(isolated):
    """Its creator holds the GIL, joins it, and has a budget open."""
    run_with_more(f"""
        in_another("pass", {isolated})
        lib = ctypes.PyDLL(None)
        thread, address = ctypes.c_ulong(), ctypes.c_void_p()
        with memlimits.budget("b") as budget:
            for n in 100, MIB:
                start = ctypes.byref(thread), None, ctypes.c_void_p(malloc), ctypes.c_void_p(n)
                assert lib.pthread_create(*start) == 0
                lib.pthread_join(thread, ctypes.byref(address))
                assert address.value
                release(address.value)
            assert budget.peak == 0
            release(attached(malloc)(MIB))
            assert budget.peak == MIB
            release(detached(malloc)(MIB // 2))
            assert budget.active == 0
        consistent()
    """)

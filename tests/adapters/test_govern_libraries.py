"""What `govern_numpy()` reaches where another library runs the code: gevent, greenlet, Jupyter.

Each in a Python of its own: they replace much of it.
"""

import importlib.util
import subprocess
import sys
import textwrap

import pytest

from support.notebooks import Notebook

pytestmark = pytest.mark.host

PREPARED = f"import sys; sys.path[:0] = {sys.path!r}\n"
NOW = """
import memlimits
from support.governed import owner_here
"""


def needs(*names):
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def said_by(script):
    """What a script prints, a line each."""
    script = PREPARED + textwrap.dedent(script)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


GREENLETS = f"""
import greenlet
{NOW}
def early():
    greenlet.getcurrent().parent.switch()
    print(owner_here())

before = greenlet.greenlet(early)
before.switch()
with memlimits.govern_numpy():
    greenlet.greenlet(lambda: print(owner_here())).switch()
    before.switch()
greenlet.greenlet(lambda: print(owner_here())).switch()
"""

GEVENT = f"""
import gevent.monkey
{{patch}}
import threading
import gevent, gevent.pool
{NOW}
governing = memlimits.govern_numpy()
print(gevent.spawn(owner_here).get())
print(*set(gevent.pool.Pool(2).map(lambda _: owner_here(), range(4))))
print(gevent.get_hub().threadpool.spawn(owner_here).get())
thread = threading.Thread(target=lambda: print(owner_here()))
thread.start()
thread.join()
gevent.spawn(governing.close).join()
print(gevent.spawn(owner_here).get())
"""


@needs("greenlet")
def test_greenlets():
    assert said_by(GREENLETS) == ["memlimits'", "memlimits'", "NumPy's"]


@needs("gevent")
@pytest.mark.parametrize("patch", ["", "gevent.monkey.patch_all()"])
def test_gevent(patch):
    assert said_by(GEVENT.format(patch=patch)) == ["memlimits'"] * 4 + ["NumPy's"]


@pytest.fixture(scope="module")
def notebook():
    notebook = Notebook()
    yield notebook
    notebook.close()


@needs("ipykernel", "jupyter_client")
@pytest.mark.parametrize("wait", ["", "await asyncio.sleep(0)"])
def test_cells_of_a_notebook(notebook, wait):
    """A cell that awaits runs in a task, whose context is gone when the cell has ended."""
    here = "print(owner_here())"
    notebook.run(f"{PREPARED}{NOW}\nimport asyncio, threading")
    notebook.run(f"{wait}\ngoverning = memlimits.govern_numpy()")
    assert notebook.run(here) == "memlimits'"
    assert notebook.run(f"await asyncio.sleep(0)\n{here}") == "memlimits'"
    thread = f"t = threading.Thread(target=lambda: {here}); t.start(); t.join()"
    assert notebook.run(thread) == "memlimits'"
    notebook.run(f"{wait}\ngoverning.close()")
    assert notebook.run(here) == "NumPy's"
    assert notebook.run(thread) == "NumPy's"


@needs("ipykernel", "jupyter_client")
def test_an_error_in_a_notebook_says_what_was_refused(notebook):
    cell = """
        from IPython import get_ipython
        import numpy
        memlimits.set_memory_policy("strict")
        before = memlimits.set_memory_limit(64 << 20)
        with memlimits.govern_numpy():
            get_ipython().run_cell("numpy.empty(70 << 20, numpy.uint8)")
        memlimits.set_memory_limit(before)
        """
    notebook.run(f"{PREPARED}{NOW}")
    shown = notebook.run(textwrap.dedent(cell))
    assert shown.count("memlimits: refused 70 MiB (73,400,320 bytes) to NumPy") == 1

"""Limits for cells, in a real kernel: what is refused, and what is left of it."""

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("ipykernel")
pytest.importorskip("jupyter_client")

from support.notebooks import Notebook
from support.places import ROOT

pytestmark = pytest.mark.host
MIB = 1 << 20
PAGE = ROOT / "docs/guides/notebooks.md"
LOADED = f"""
import sys; sys.path[:0] = {sys.path!r}
import asyncio, gc, time, numpy, memlimits
MIB = 1 << 20
before = memlimits.get_memory_limit(), memlimits.get_memory_policy()
def limits_now():
    from support.governed import owner_here
    now = memlimits.get_memory_limit(), memlimits.get_memory_policy()
    print("as before" if now == before and owner_here() == "NumPy's" else f"changed: {{now}}")
def filled(mebibytes):
    return numpy.ones(mebibytes << 20, numpy.uint8)
%load_ext memlimits
"""


# Modules that were imported to show an error, say, are Python's objects and count.
LITTLE = 20 * MIB


def held(notebook):
    return int(notebook.run("print(memlimits.get_active_memory())"))


@pytest.fixture(scope="module")
def kernel():
    notebook = Notebook()
    yield notebook
    notebook.close()


@pytest.fixture
def notebook(kernel):
    kernel.run(LOADED)
    yield kernel
    assert kernel.run("limits_now()") == "as before"
    # What a test took is let go of by name; errors hold nothing.
    kernel.run("kept = None")
    assert held(kernel) < LITTLE


REFUSED = """%%memory_limit 100MiB
def work():
    held = filled(40)
    return held, filled(70)
print("asking")
work()
print("ne" "ver")
"""


def test_a_refusal_shows_its_numbers_and_holders_under_the_cell(notebook):
    cell = notebook.cell(REFUSED)
    assert (cell.status, cell.reply["ename"]) == ("error", "MemoryError")
    kinds = [kind for kind, _ in cell.outputs if kind not in ("status", "execute_input")]
    assert kinds == ["stream", "error", "display_data"]
    assert "never" not in cell.text
    assert cell.text.count("memlimits: refused 70 MiB (73,400,320 bytes) to NumPy") == 1
    [plain], [html] = cell.shown("text/plain"), cell.shown("text/html")
    for shown in (plain, re.sub("<[^>]*>", " ", html)):
        assert re.search(r"asked for +70 MiB", shown)
        assert re.search(r"limit +100 MiB", shown)
        assert "filled" in shown
        assert re.search(r"40 MiB|41943040", shown)
    assert re.search(r"filled \(Cell In\[\d+\]:\d+\) 40 MiB in a block", plain)
    assert notebook.run("print(6 * 7)") == "42"


def test_what_fits_is_as_in_any_cell(notebook):
    notebook.cell("kept = 3")
    cell = notebook.cell("%%memory_limit 100 MiB\nkept = filled(50)\nlen(kept)")
    assert (cell.status, cell.shown("text/plain")) == ("ok", [str(50 << 20)])
    assert notebook.run("print(len(kept), _)") == f"{50 << 20} {50 << 20}"


def test_lines_are_those_of_the_cell(notebook):
    cell = notebook.cell("%%memory_limit 100MiB\n\nvalue = 1\nraise KeyError(value)")
    assert re.search(r"line 4|----> 4", cell.text)


def test_pythons_objects_are_refused_and_the_kernel_lives():
    """Also where there is just the room that a cell has to have; the next cell has it again."""
    notebook = Notebook()  # arenas stay where something of the kernel's lies in them
    notebook.run(LOADED)
    least = "%memory_limit {(memlimits.stats().footprint >> 20) + 17}MiB"
    for step in ("kept.append(bytes(999))", "kept.append([kept])", "kept += kept"):
        for first in ("%%memory_limit 100MiB", least, least):
            cell = notebook.cell(f"{first}\nkept = [1]\nwhile True:\n    {step}")
            assert (cell.status, cell.reply["ename"]) == ("error", "MemoryError")
            assert "to Python" in cell.text
            assert len(cell.shown("text/html")) == 1
            notebook.run("kept = None")
    notebook.run("gc.collect()")
    assert notebook.run("%%memory_limit 100MiB\nprint(len(bytes(30 << 20)))") == str(30 << 20)
    notebook.close()


def test_the_failed_functions_memory_is_free_for_the_next_cell(notebook):
    """Not before: %debug looks into their frames."""
    notebook.cell(REFUSED)
    looking = (
        "import sys; print(sys.last_value.__traceback__.tb_next.tb_next.tb_frame.f_locals.keys())"
    )
    assert "held" in notebook.run(looking)
    # It says so by its name, as %debug and pdb do. Another cell does not.
    assert held(notebook) < LITTLE
    assert "held" not in notebook.run(looking)
    # The traceback itself is there still.
    assert "filled(70)" in notebook.cell("%tb").text
    fits = notebook.cell(REFUSED.replace("70", "35"))
    assert fits.status == "ok"


def test_debug_after_a_refusal(notebook):
    notebook.cell(REFUSED)
    said = []

    def answer(message):
        if message["msg_type"] == "stream":
            said.append(message["content"]["text"])

    def type_in(message):
        words = iter(["up", "up", "p 'held is', len(held)", "q"])
        answers = globals().setdefault("_answers", words)
        notebook.client.input(next(answers, "q"))

    globals().pop("_answers", None)
    notebook.cell("%debug", answer, allow_stdin=True, stdin_hook=type_in)
    assert f"('held is', {40 << 20})" in "".join(said)


def test_a_generator_that_waits_goes_on(notebook):
    """A frame that an old error came through may be in use by now."""
    notebook.run("""
def counting():
    try:
        filled(200)
    except MemoryError as error:
        global saved
        saved = error
    yield 1
    yield 2
with memlimits.limits(memory=100 * MIB, policy="strict"), memlimits.govern_numpy():
    counter = counting()
    next(counter)
""")
    assert notebook.cell("raise saved").status == "error"
    assert notebook.run("print(next(counter))") == "2"


@pytest.mark.parametrize("how", ["", "await asyncio.sleep(0)\n", "await asyncio.sleep(0.01)\n"])
def test_a_cell_that_awaits_is_limited_until_its_end(notebook, how):
    cell = notebook.cell(f"%%memory_limit 100MiB\n{how}memlimits.get_memory_limit() // MIB")
    assert cell.shown("text/plain") == ["100"]
    assert notebook.run("limits_now()") == "as before"
    cell = notebook.cell(f"%%memory_limit 100MiB\n{how}filled(120)")
    assert (cell.reply["ename"], len(cell.shown("text/html"))) == ("MemoryError", 1)
    assert notebook.run("limits_now()") == "as before"
    cell = notebook.cell(f"%%memory_limit 100MiB\n{how}raise SystemExit")
    assert notebook.run("limits_now()") == "as before"


@pytest.mark.parametrize("wait", ["time.sleep(0.05)", "await asyncio.sleep(0.05)"])
def test_an_interrupt_closes_the_limits(notebook, wait):
    def interrupt(message):
        if message["msg_type"] == "stream":
            notebook.manager.interrupt_kernel()

    source = f"%%memory_limit 100MiB\nprint('begun', flush=True)\nwhile True:\n    {wait}"
    cell = notebook.cell(source, interrupt)
    assert cell.status == "error"
    assert cell.reply["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert cell.shown("text/html") == []


def test_a_cell_in_a_cell_has_the_lower_limit(notebook):
    source = """%%memory_limit 100MiB
for size in ("50MiB", "200MiB"):
    get_ipython().run_cell(f"%%memory_limit {size}\\nprint(memlimits.get_memory_limit() // MIB)")
    print(memlimits.get_memory_limit() // MIB)
get_ipython().run_cell("filled(120)")
get_ipython().run_cell_magic("memory_limit", "60MiB", "print(memlimits.get_memory_limit() // MIB)")
print("after", memlimits.get_memory_limit() // MIB)"""
    cell = notebook.cell(source)
    assert cell.status == "ok"
    printed = "".join(c["text"] for kind, c in cell.outputs if kind == "stream")
    assert printed.split() == ["50", "100", "100", "100", "60", "after", "100"]
    assert len(cell.shown("text/html")) == 1


@pytest.mark.parametrize(
    "order", ["%%memory_limit 100MiB\n%%time", "%%time\n%%memory_limit 100MiB"]
)
def test_other_magics_above_and_below(notebook, order):
    cell = notebook.cell(f"{order}\nprint(memlimits.get_memory_limit() // MIB)")
    assert cell.text.startswith("100\n")
    assert "Wall time" in cell.text
    assert notebook.run("limits_now()") == "as before"


def test_from_a_line_to_the_end_of_the_cell(notebook):
    lines = ("print(memlimits.get_memory_policy())", "%memory_limit {90 + 10}MiB")
    source = "\n".join((*lines, "memlimits.get_memory_policy()"))
    cell = notebook.cell(source)
    assert (cell.text.split("\n")[0], cell.shown("text/plain")) == ("guideline", ["'strict'"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%%memory_limit", "%%memory_limit takes a size: %%memory_limit 2GiB"),
        ("%%memory_limit much", "%%memory_limit: invalid size 'much': write it as 512MiB"),
        ("%%memory_limit 2", "%%memory_limit: 2 bytes, or MiB? Write 2B or 2MiB"),
        ("%%memory_limit 1MiB", "%%memory_limit 1MiB leaves too little: "),
        ("%memory_stats --much", "%memory_stats: no such option '--much'; it takes"),
        ("%memory_stats -n x", "%memory_stats --holders takes a number of lines, not 'x'"),
        ("%memory_stats 'a", "%memory_stats 'a: No closing quotation"),
    ],
)
def test_what_is_wrong_is_a_sentence(notebook, line, said):
    cell = notebook.cell(f"{line}\nprint('run')" if line.startswith("%%") else line)
    assert (cell.status, cell.reply["ename"]) == ("error", "UsageError")
    assert cell.text.startswith(f"UsageError: {said}")
    assert len(cell.text.splitlines()) == 1


def test_what_earlier_cells_hold_counts(notebook):
    notebook.run("%%memory_limit 100MiB\nkept = filled(70)")
    cell = notebook.cell("%%memory_limit 75MiB\n1")
    assert re.search(r"75MiB leaves too little: [78]\d(\.\d+)? MiB are in use already", cell.text)
    assert notebook.cell("%%memory_limit 100MiB\nfilled(40)").status == "error"


def test_a_refusal_without_the_magic_is_shown_too(notebook):
    cell = notebook.cell("with memlimits.limits(memory=50 * MIB, policy='strict'):\n"
                         "    memlimits.allocate(60 * MIB)")  # fmt: skip
    assert cell.reply["ename"] == "MemoryLimitError"
    [plain] = cell.shown("text/plain")
    assert re.search(r"asked for +60 MiB\n +refused +the memory limit does not allow it", plain)
    other = notebook.cell("raise MemoryError('not ours')")
    assert other.shown("text/html") == []


def test_stats(notebook):
    notebook.run("%%memory_limit 100MiB\nlen(filled(60))")
    cell = notebook.cell("%memory_stats")
    [plain], [html] = cell.shown("text/plain"), cell.shown("text/html")
    assert plain.splitlines()[0].split()[0] == "memory_limit"
    assert len(plain.splitlines()) == 9
    assert html.count("<tr") == 9
    whole = notebook.cell("stats = %memory_stats --all -o --reset-peak --holders=2")
    [plain] = whole.shown("text/plain")
    assert "process_peak_resident" in plain
    assert notebook.run("print(type(stats).__name__)") == "Stats"
    before, after = notebook.run("print(stats.peak, memlimits.stats().peak)").split()
    assert int(before) > 60 * MIB > int(after)


def test_text_of_the_program_is_shown_as_text(notebook):
    """The name of a file or function is no HTML."""
    cell = notebook.cell("""%%memory_limit 100MiB
source = "def f():\\n    kept = filled(50)\\n    filled(70)\\nf()"
exec(compile(source.replace("kept = filled(50)", "kept = numpy.ones(50 << 20, 'u1')"),
             "<script>alert('1')</script>", "exec"))""")
    [html] = cell.shown("text/html")
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;" in html


SCRIPT = """
%load_ext memlimits
import memlimits
def cell(source):
    return get_ipython().run_cell(source).success
%memory_limit 64MiB
print(memlimits.get_memory_limit() >> 20)
print(cell("%%memory_limit 50MiB\\nawait __import__('asyncio').sleep(0)\\nbytes(60 << 20)"))
print(cell("%%memory_limit 50MiB\\nlen(bytes(1 << 20))"))
%memory_stats
"""


def test_a_script_of_ipythons(tmp_path):
    """Without a kernel: what is shown is text."""
    (tmp_path / "script.ipy").write_text(SCRIPT)
    words = [sys.executable, "-m", "IPython", "--colors=NoColor", "script.ipy"]
    environ = {**os.environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout
    assert shown.startswith("64\n")
    assert re.search(r"^memory refused:\n  asked for +60 MiB\n(  .*\n)+False\n", shown, re.M)
    assert re.search(r"1048576\nTrue\nmemory_limit +64 MiB", shown)


def test_without_ipython_the_error_says_what_to_install(tmp_path):
    (tmp_path / "IPython.py").write_text("raise ModuleNotFoundError(name=__name__)")
    done = subprocess.run(
        [sys.executable, "-c", "import memlimits; memlimits.load_ipython_extension(None)"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
    )
    said = "memlimits.adapters.jupyter needs IPython: pip install ipython"
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {said}"


def test_unloading_takes_all_of_it_out(notebook):
    try:
        sampled = "print(memlimits.get_holder_sampling())"
        notebook.run("%unload_ext memlimits")
        assert notebook.run(sampled) == "None"
        hooks = "get_ipython().events.callbacks.values(), get_ipython().input_transformers_cleanup"
        assert "memlimits" not in notebook.run(f"print({hooks})")
        assert "not found" in notebook.cell("%%memory_limit 100MiB\n1").text
        assert "not found" in notebook.cell("%memory_stats").text
        assert notebook.run("%load_ext memlimits\n%load_ext memlimits") == (
            "The memlimits extension is already loaded. To reload it, use:\n  %reload_ext memlimits"
        )
        source = "%memory_limit 100MiB\n%unload_ext memlimits\nlimits_now()"
        assert notebook.run(source) == "as before"
        assert notebook.run(sampled) == "None"
    finally:
        notebook.run("%load_ext memlimits")


def test_what_the_page_shows(notebook):
    """Where a reader's limit is below what the cell needs: 610 MiB."""
    loading, cell = re.findall(r"^```ipython\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    notebook.run(loading.replace("%load_ext memlimits", ""))
    refused = notebook.cell(cell)
    assert refused.reply["ename"] == "MemoryError"
    assert re.search(r"held by +(ones|work) ", refused.shown("text/plain")[0])
    before = held(notebook)
    assert before < LITTLE

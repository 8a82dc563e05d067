"""The house's rules: who may name what. They are read off the source, so a clone is needed."""

import ast
import re
import subprocess
import sys

import pytest

from support.places import OBJC, ROOT

PACKAGE = ROOT / "memlimits"

# From the ground up: a room's modules name those of their own room and of rooms before it.
ROOMS = [
    "_base", "_device", "_heap", "_ledger", "_residency", "_engine", "_bindings", "_modules",
    "_malloc", "adapters", "cli",
]  # fmt: skip
LISTS = ("LINKED", "MADE", "FIRST_USED", "ALONE")


def listed(name):
    """One of the lists in _modules.pyx, as setup.py reads it."""
    text = (PACKAGE / "_modules.pyx").read_text()
    found = re.search(rf"^{name} = (\(.*?\))$", text, re.DOTALL | re.MULTILINE)
    return ast.literal_eval(found[1])


def named(path):
    """A source as the lists name it."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room_of(module):
    return ROOMS.index(module.split(".")[0])


ORDER = [module for name in LISTS for module in listed(name)]
LINKED_SOURCES = [PACKAGE / f"{name.replace('.', '/')}.pyx" for name in listed("LINKED")]

INTERFACE = PACKAGE / "__init__.pxd"


def cython_sources():
    sources = [*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")]
    return sorted(path for path in sources if path != INTERFACE)


def cimported(path):
    """The modules of memlimits that a source cimports."""
    text = path.read_text()
    modules = r"^\s*(?:from|cimport) memlimits\.([\w.]+)(?: cimport| as|$)"
    return set(re.findall(modules, text, re.MULTILINE))


def imported(path):
    text = path.read_text()
    return set(re.findall(r"^\s*(?:from|import) +([\w.]+)(?! +cimport)", text, re.MULTILINE))


def test_every_module_is_in_one_list():
    compiled = [named(path) for path in PACKAGE.rglob("*.pyx")]
    assert sorted(compiled) == sorted([*ORDER, "_modules"])


def test_no_list_goes_down_a_floor():
    for name in LISTS:
        rooms = [room_of(module) for module in listed(name)]
        assert rooms == sorted(rooms), name


@pytest.mark.parametrize("path", cython_sources(), ids=named)
def test_no_edge_goes_up(path):
    own = named(path)
    for other in cimported(path) - {own}:
        assert room_of(other) <= room_of(own), other
        if path.suffix == ".pyx" and other in ORDER and own in ORDER:
            assert ORDER.index(other) < ORDER.index(own), other


def test_the_package_is_seen_at_a_glance():
    """What building and running leave here does not count."""
    entries = {path.name for path in PACKAGE.iterdir() if path.suffix not in {".c", ".so"}}
    entries -= {"__pycache__", "lib"}
    assert len(entries) <= 32, entries


def test_only_the_command_names_what_is_the_commands():
    others = [path for path in PACKAGE.rglob("*.py") if path.parent.name not in ("cli", "formats")]
    imports = re.compile(r"^ *(from|import) memlimits\.cli\b", re.MULTILINE)
    named = [path.name for path in others if imports.search(path.read_text())]
    assert sorted(named) == ["__main__.py"]


def test_each_room_has_its_page():
    for room in ROOMS[: ROOMS.index("_modules")]:
        tree = ast.parse((PACKAGE / room / "__init__.py").read_text())
        assert len(tree.body) == 1
        page = ast.get_docstring(tree)
        modules = {path.stem for path in (PACKAGE / room).glob("*.p[yx][xd]")}
        assert [module for module in modules if f"`{module}`" not in page] == [], room


@pytest.mark.parametrize("path", LINKED_SOURCES, ids=named)
def test_what_is_linked_is_functions_without_python(path):
    text = re.sub(r'""".*?"""|#.*?$', "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    statements = r"^(?!cdef |from [\w.]+ cimport |cimport |    |\)|\S*$)(.+)"
    assert re.findall(statements, text, re.MULTILINE) == []
    functions = re.findall(
        r"^cdef (?!extern|struct|enum)[\w *]+\([^)]*\)([^:]*):", text, re.MULTILINE
    )
    assert functions
    assert {ending.strip() for ending in functions} <= {"noexcept nogil"}


def made_of(sources, folder):
    """The C that the last build made of them, or where that is older than any source, Cython."""
    made = {
        path: ROOT / "build/cython" / path.relative_to(ROOT).with_suffix(".c") for path in sources
    }
    changed = max(path.stat().st_mtime for path in [ROOT / "setup.py", *cython_sources()])
    if not all(path.exists() and path.stat().st_mtime > changed for path in made.values()):
        names = [str(path.relative_to(ROOT)) for path in sources]
        program = f"""
from Cython.Build import cythonize
cythonize({names}, build_dir={str(folder)!r}, quiet=True,
          compiler_directives={{"cdivision": True, "language_level": 3}})
"""
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
        made = {path: (folder / path.relative_to(ROOT)).with_suffix(".c") for path in sources}
    return made


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the oldest Python tells it for all")
def test_what_is_linked_needs_no_python(tmp_path):
    """No module is made of it: there are no objects of its own, and nothing runs at an import."""
    for source, made in made_of(LINKED_SOURCES, tmp_path).items():
        text = made.read_text()
        code = text.split("Code section: module_code ### */")[1].split("/* #### Code section")[0]
        objects = r"__pyx_mstate|PyGILState|PyErr_|WriteUnraisable"
        assert re.findall(objects, code) == [], source


def test_no_module_cimports_the_package():
    """It would import _malloc, and with it nearly all others, before itself."""
    package = re.compile(r"^\s*(from memlimits cimport|cimport memlimits\b(?!\.))", re.MULTILINE)
    assert [path.name for path in cython_sources() if package.search(path.read_text())] == []


def test_whoever_cimports_the_package_needs_no_header_of_the_house():
    assert cimported(INTERFACE) == {"_malloc"}
    assert cimported(PACKAGE / "_malloc.pxd") == set()


@pytest.mark.parametrize(
    "path", [path for path in cython_sources() if path.suffix == ".pyx"], ids=named
)
def test_what_the_house_keeps_for_itself_is_not_asked_of_itself(path):
    """Under a lock of ours malloc would wait for that lock, where malloc is ours."""
    names = re.findall(r"libc\.stdlib cimport (.*)", path.read_text())
    taking = {"malloc", "calloc", "realloc", "aligned_alloc"} & set(re.findall(r"\w+", str(names)))
    assert not taking or named(path) == "_base.own"


def test_limits_are_arithmetic_alone():
    for name in ("limits.pyx", "limits.pxd"):
        assert {room_of(module) for module in cimported(PACKAGE / "_ledger" / name)} <= {0}


def test_the_systems_files_are_read_where_a_fork_waits_for_it():
    reads = re.compile(r"\bmlim_device_(sizes|stall|touched|bounds)\b")
    readers = {named(path) for path in cython_sources() if reads.search(path.read_text())}
    assert readers == {"_device.mlim", "_device.readings"}


def test_a_status_becomes_an_exception_in_one_place():
    raises = re.compile(r"raise (DeviceError|MemoryError)\(text\)")
    found = [named(path) for path in cython_sources() if raises.search(path.read_text())]
    assert found == ["_device.device"]


def test_the_pxd_is_the_header_word_for_word():
    def words(text):
        text = re.sub(r'/\*.*?\*/|""".*?"""|#.*?$', "", text, flags=re.DOTALL | re.MULTILINE)
        return re.findall(r"mlim_\w+\([^)]*\)|MLIM_[A-Z_]+", re.sub(r"\s+", " ", text))

    header = words((OBJC / "mlim.h").read_text())
    assert len(header) > 20
    declared = [
        re.sub(r"\( ", "(", word) for word in words((PACKAGE / "_device" / "mlim.pxd").read_text())
    ]
    assert declared == [word for word in header if word != "MLIM_H"]


def test_the_header_includes_libc_only():
    included = re.findall(r"#include (\S+)", (OBJC / "mlim.h").read_text())
    assert included == ["<stdbool.h>", "<stddef.h>", "<stdint.h>"]


def test_every_metal_file_has_its_host_file():
    metal = {path.stem.removeprefix("metal_") for path in OBJC.glob("metal_*.m")}
    host = {path.stem.removeprefix("host_") for path in OBJC.glob("host_*.c")}
    assert metal <= host


def test_apples_names_stay_in_the_metal_files():
    apples = re.compile(r"\b(MTL|NS)[A-Z]\w+")
    c_sources = [path for path in OBJC.glob("*.[ch]") if path.stem != "metal"]
    modules = [path for path in PACKAGE.rglob("*.py") if path.stem != "metal"]
    sources = [*cython_sources(), *modules, *c_sources]
    assert [path.name for path in sources if apples.search(path.read_text())] == []


def test_no_policy_in_the_c_library():
    policy = re.compile(r"guideline|strict\b|\b(cache|memory|wired)_limit", re.IGNORECASE)
    assert [path.name for path in OBJC.iterdir() if policy.search(path.read_text())] == []


def test_nothing_in_the_core_imports_an_adapter_or_numpy():
    core = [path for path in cython_sources() if room_of(named(path)) < ROOMS.index("adapters")]
    for path in [*core, PACKAGE / "memory.py"]:
        names = imported(path) | cimported(path)
        assert not [name for name in names if re.match(r"(memlimits\.)?(adapters|numpy)", name)]


def test_errors_imports_nothing_itself():
    """Whoever raises imports it. What `is_refusal` needs is there when that is called."""
    body = ast.parse((PACKAGE / "errors.py").read_text()).body
    assert not [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]


def test_environment_variables_are_read_in_no_core_module():
    reads = re.compile(r"\bgetenv|\benviron\b")
    core = [path for path in cython_sources() if path.parent.name != "cli"]
    sources = [*core, *OBJC.glob("*.[chm]")]
    assert [path.name for path in sources if reads.search(path.read_text())] == []

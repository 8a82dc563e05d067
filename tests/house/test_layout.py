"""The house's rules: who may name what. They are read off the source, so a clone is needed."""

import re
import subprocess
import sys

import pytest

from support.places import OBJC, ROOT

PACKAGE = ROOT / "memlimits"

# A module cimports only what stands above it.
CORE = [
    "_python", "_spares", "_sync", "_lock", "_mlim", "_device", "_modules", "_limits", "_resource",
    "_misuse",
    "_accounts", "_pagemap", "_bins", "_cache", "_heap", "_heaps", "_residency_sets", "_residency",
    "_asked", "_core", "_controls", "_fork", "_settings", "_statistics", "_purgeable", "_pressure",
    "_room", "_waiting", "_idle", "_refusals", "_floors", "_growth", "_resize", "_charging",
    "_callers", "_arguments", "_allocator", "_contexts", "_budgets", "_scopes", "_dlpack",
    "_buffer", "_wiring", "_getters", "_system", "_metal", "_malloc",
]  # fmt: skip


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


def test_every_core_module_has_its_place():
    assert {path.stem for path in PACKAGE.glob("_*.p[yx][xd]")} - {"__init__"} == set(CORE)


@pytest.mark.parametrize("path", cython_sources(), ids=lambda path: path.name)
def test_modules_cimport_only_what_stands_above(path):
    above = CORE if path.parent != PACKAGE else CORE[: CORE.index(path.stem)]
    assert cimported(path) - {path.stem} <= set(above)


def test_no_module_cimports_the_package():
    """It would import _malloc, and with it nearly all others, before itself."""
    package = re.compile(r"^\s*(from memlimits cimport|cimport memlimits\b(?!\.))", re.MULTILINE)
    assert [path.name for path in cython_sources() if package.search(path.read_text())] == []


def test_whoever_cimports_the_package_needs_no_header_of_the_house():
    assert cimported(INTERFACE) == {"_malloc"}
    assert cimported(PACKAGE / "_malloc.pxd") == set()


def test_limits_cimports_no_sibling():
    assert cimported(PACKAGE / "_limits.pyx") == cimported(PACKAGE / "_limits.pxd") == set()


def test_only_device_calls_the_c_library():
    """The others use its types and constants, and reach its functions through _device."""
    call = re.compile(r"\bmlim_\w+\(")
    callers = {path.stem for path in cython_sources() if call.search(path.read_text())}
    assert callers == {"_mlim", "_device"}


def test_the_pxd_is_the_header_word_for_word():
    def words(text):
        text = re.sub(r'/\*.*?\*/|""".*?"""|#.*?$', "", text, flags=re.DOTALL | re.MULTILINE)
        return re.findall(r"mlim_\w+\([^)]*\)|MLIM_[A-Z_]+", re.sub(r"\s+", " ", text))

    header = words((OBJC / "mlim.h").read_text())
    assert len(header) > 20
    declared = [re.sub(r"\( ", "(", word) for word in words((PACKAGE / "_mlim.pxd").read_text())]
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
    for path in [*PACKAGE.glob("*.py[x]"), *PACKAGE.glob("*.pxd"), PACKAGE / "memory.py"]:
        names = imported(path) | cimported(path)
        assert not [name for name in names if re.match(r"(memlimits\.)?(adapters|numpy)", name)]


def test_errors_imports_nothing():
    assert imported(PACKAGE / "errors.py") == set()


def test_environment_variables_are_read_in_no_core_module():
    reads = re.compile(r"\bgetenv|\benviron\b")
    core = [path for path in cython_sources() if path.parent.name != "cli"]
    sources = [*core, *OBJC.glob("*.[chm]")]
    assert [path.name for path in sources if reads.search(path.read_text())] == []


def test_importing_memlimits_imports_no_numpy():
    script = (
        "import sys, memlimits; heavy = {'numpy', 'dataclasses', 'typing', 'argparse'};"
        "print(heavy & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_every_exported_name_is_there():
    import memlimits

    assert [name for name in memlimits.__all__ if not hasattr(memlimits, name)] == []
    assert list(memlimits.__all__) == sorted(memlimits.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        memlimits.nothing  # noqa: B018

"""Row 1: allocate and release from Python, against an object that does nothing."""

import importlib.util
import sys

import numpy as np
from compiled import cython_module
from session import KIB, MIB, Session, size_label
from timing import statement

import memlimits

TITLE = "allocate and release one cached block, from Python"
SIZES = [16, 256, 4 * KIB, 64 * KIB, MIB, 16 * MIB, 256 * MIB]
QUICK_SIZES = [16, 4 * KIB, 256 * MIB]


def run(session: Session) -> None:
    sys.path.append(str(cython_module("floor")))
    from floor import Floor

    others = _others(session)
    for size in QUICK_SIZES if session.quick else SIZES:
        names = {"size": size, "allocate": memlimits.allocate, "Floor": Floor, "np": np}
        sides = {
            "floor": statement("Floor(size)", names),
            "allocate": statement("allocate(size)", names),
            "allocate, release": statement("allocate(size).release()", names),
            "np.empty(4096)": statement("np.empty(4096, 'u1')", names),
            "np.empty": statement("np.empty(size, 'u1')", names),
            **{
                name: statement(source, {"size": size, **of})
                for name, (source, of) in others.items()
            },
        }
        label = size_label(size)
        found = session.compare(label, sides, base="floor")
        session.judge_ratio("floor", label, found, "allocate", "floor")
        session.judge_ratio("np.empty(4096)", label, found, "np.empty(4096)", "allocate")
        memlimits.clear_cache()


def _others(session: Session) -> dict[str, tuple[str, dict[str, object]]]:
    """Statements of libraries that are measured where they are installed."""
    others: dict[str, tuple[str, dict[str, object]]] = {"bytearray": ("bytearray(size)", {})}
    if importlib.util.find_spec("pyarrow"):
        import pyarrow

        others["pyarrow"] = ("allocate_buffer(size)", {"allocate_buffer": pyarrow.allocate_buffer})
        session.report.versions["pyarrow"] = pyarrow.__version__
    else:
        session.report.miss("pyarrow", "pip install pyarrow")
    if importlib.util.find_spec("torch"):
        import torch

        others["torch"] = ("empty(size, dtype=uint8)", {"empty": torch.empty, "uint8": torch.uint8})
        session.report.versions["torch"] = torch.__version__
    else:
        session.report.miss("torch", "pip install torch")
    return others

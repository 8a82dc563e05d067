from typing import Any, Literal, SupportsIndex

import numpy
from numpy.typing import DTypeLike

from memlimits.adapters._governing import Governing

def empty(
    shape: SupportsIndex | tuple[SupportsIndex, ...],
    dtype: DTypeLike | None = ...,
    order: Literal["C", "F"] = "C",
    *,
    wired: bool = False,
) -> numpy.ndarray[Any, Any]: ...
def zeros(
    shape: SupportsIndex | tuple[SupportsIndex, ...],
    dtype: DTypeLike | None = ...,
    order: Literal["C", "F"] = "C",
    *,
    wired: bool = False,
) -> numpy.ndarray[Any, Any]: ...
def own_handler() -> object: ...
def govern_numpy(*, aligned: bool | None = None) -> Governing: ...
def other_handler() -> str | None: ...
def governs(extension: object) -> bool: ...
def spare_thread(is_to_be: bool) -> None: ...

from typing import Any, Literal, SupportsIndex

import numpy
from numpy.typing import DTypeLike

def empty(
    shape: SupportsIndex | tuple[SupportsIndex, ...],
    dtype: DTypeLike | None = ...,
    order: Literal["C", "F"] = "C",
) -> numpy.ndarray[Any, Any]: ...
def zeros(
    shape: SupportsIndex | tuple[SupportsIndex, ...],
    dtype: DTypeLike | None = ...,
    order: Literal["C", "F"] = "C",
) -> numpy.ndarray[Any, Any]: ...
def set_handler(new: object) -> object: ...
def own_handler() -> object: ...

from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, final

_F = TypeVar("_F", bound=Callable[..., Any])

LEVELS: dict[str, int]
MOST_BYTES_OF_A_PLACE: int

@final
class Failing:
    def __new__(
        cls,
        first: int,
        every: int,
        least: int,
        file: bytes,
        function: bytes,
        levels: tuple[str, ...],
        any_thread: bool,
        may_open: Callable[[], None],
    ) -> Self: ...
    @property
    def requests(self) -> int: ...
    @property
    def refused(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __call__(self, function: _F) -> _F: ...
    def again(self) -> Failing: ...
    def __reduce__(self) -> NoReturn: ...

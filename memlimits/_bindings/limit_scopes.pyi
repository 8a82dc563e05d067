from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, SupportsFloat, SupportsIndex, TypeVar, final

_F = TypeVar("_F", bound=Callable[..., Any])

@final
class limits:  # noqa: N801 - to its users it is a function
    def __new__(
        cls,
        *,
        memory: SupportsIndex | str = ...,
        cache: SupportsIndex | str | None = ...,
        wired: SupportsIndex | str = ...,
        policy: str = ...,
        timeout: SupportsFloat | None = None,
        count: str = ...,
    ) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __call__(self, function: _F) -> _F: ...
    def again(self) -> limits: ...

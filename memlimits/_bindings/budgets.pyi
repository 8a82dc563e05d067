from types import TracebackType
from typing import Any, Self, SupportsIndex, final

from typing_extensions import disjoint_base

BLOCKED_BY: tuple[str | None, ...]

@disjoint_base
class Scope:
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
    def close(self) -> None: ...

@final
class Budget(Scope):
    name: str
    limit: int | None
    @property
    def active(self) -> int: ...
    @property
    def peak(self) -> int: ...

@final
class Reservation(Scope):
    nbytes: int
    @property
    def remaining(self) -> int: ...

def budget(name: str, limit: SupportsIndex | str | None = None) -> Budget: ...
def reserve(nbytes: SupportsIndex | str) -> Reservation: ...
def what_blocks(nbytes: SupportsIndex | str) -> tuple[int, str | None]: ...
def budgets() -> list[dict[str, Any]]: ...

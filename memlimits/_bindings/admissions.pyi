from typing import SupportsFloat, SupportsIndex, final

@final
class Admission:
    group: str | None
    def __init__(
        self,
        nbytes: SupportsIndex,
        group: str | None = None,
        timeout: SupportsFloat | None = None,
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def open(self) -> bool: ...
    def close(self) -> bool: ...

def note(active: int, cache: int, peak: int) -> tuple[int, bool]: ...

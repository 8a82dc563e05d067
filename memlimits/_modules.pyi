from types import ModuleType

LINKED: tuple[str, ...]
MADE: tuple[str, ...]
FIRST_USED: tuple[str, ...]
ALONE: tuple[str, ...]

def for_c() -> ModuleType: ...
def for_metal() -> ModuleType: ...
def for_numpy() -> ModuleType: ...

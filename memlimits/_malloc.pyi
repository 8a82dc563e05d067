# For C: capsules.
BLOCKED_BY: tuple[str | None, ...]
functions: object
functions_with_size: object

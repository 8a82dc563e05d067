"""What ends the command before it has done its work."""


class CommandError(Exception):
    """A message for the user; the command exits with status 2."""


class OutputError(Exception):
    """Standard output takes no more. Its argument is what the system said, an OSError."""

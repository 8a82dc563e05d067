"""Where the tests and the sources lie."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
OBJC = ROOT / "objc"


def let_everybody_in(folder):
    """Have other users read a directory, and all above it."""
    for each in (folder, *folder.parents[:-1]):
        each.chmod(each.stat().st_mode | 0o055)

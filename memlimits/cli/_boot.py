# The command again, in an interpreter with options of its own, which may keep this package from
# being found: so it is loaded from where this file is.
import sys


def main(known: "list[str]") -> int:
    from _frozen_importlib import _load  # type: ignore[attr-defined]
    from _frozen_importlib_external import PathFinder
    from os.path import abspath, dirname

    _load(PathFinder.find_spec("memlimits", [dirname(dirname(dirname(abspath(__file__))))]))
    from memlimits.cli import main

    return main(known=known)


if __name__ == "__main__":
    sys.exit(main(list(sys.modules)))

"""What tox.ini's list of environments means to the scripts and to CI, which have no other.

environments.py versions            the Pythons that have an environment of their own
environments.py checks              the other environments
environments.py github              outputs for a workflow: what its jobs run on
environments.py judge RESULT...     whether all passed, by tox's --result-json files
"""

import json
import re
import sys
from configparser import ConfigParser
from pathlib import Path

# Measures the machine: what a target is missed by is no failure.
BENCH = "bench"
CLOSING = re.compile(r"^=+ (.*\b(?:passed|failed|errors?)\b.*) =+$", re.MULTILINE)
# Lines that say which test failed, and why: pytest's, and the last of a sanitizer's.
WHY = re.compile(r"^(?:_+ .*\btest_.* _+|E  .*|(?:FAILED|ERROR) .*|SUMMARY: .*)$", re.MULTILINE)
MOST_LINES = 60


def version_of(name):
    """The version in a name of tox's: "3.13t" for "py313t", nothing for "lint"."""
    found = re.fullmatch(r"py3(\d+t?)", name)
    return f"3.{found[1]}" if found else ""


def environments(path=Path(__file__).parents[1] / "tox.ini"):
    """Each environment that is to pass, with the version of Python that it names, if any."""
    config = ConfigParser(interpolation=None)
    with open(path) as file:
        config.read_file(file)
    names = [name for name in re.split(r"[,\s]+", config["tox"]["env_list"]) if name]
    if odd := [name for name in names if not re.fullmatch(r"[\w-]+", name)]:
        raise SystemExit(f"{path}: env_list is to be plain names, one after another, not {odd[0]}")
    bases = {name: config.get(f"testenv:{name}", "base_python", fallback=name) for name in names}
    return {name: version_of(base) for name, base in bases.items() if name != BENCH}


def versions(envs):
    return [version for name, version in envs.items() if version_of(name)]


def checks(envs):
    return [name for name in envs if not version_of(name)]


def github(envs):
    """Lines for $GITHUB_OUTPUT. What names no version runs on the oldest; macOS has the Metal."""
    oldest = versions(envs)[0]
    linux = [{"env": name, "python": version or oldest} for name, version in envs.items()]
    macos = [version for version in versions(envs) if not version.endswith("t")]
    return [f"linux={json.dumps(linux)}", f"macos={json.dumps(macos)}"]


def passed(name, version, result):
    """Whether one environment's tests, or lint, ran on the right Python and passed; its closing."""
    python = result["python"]["version"]
    closing = [line for run in result["test"] for line in CLOSING.findall(run["output"])]
    good = (
        python.startswith(version.rstrip("t") + "." if version else "3.")
        and version.endswith("t") == ("free-threading" in python)
        and (closing or name == "lint")
        and result["test"]
        and not any(run["retcode"] for run in result["test"])
    )
    return bool(good), f"Python {python.split()[0]}", " ".join(closing)


def why(result):
    """What a failed environment's tests said."""
    texts = [run.get(stream, "") for run in result["test"] for stream in ("output", "err")]
    lines = [line[:200] for text in texts for line in WHY.findall(text)]
    return lines[:MOST_LINES]


def judge(envs, paths):
    """Print how each environment ended, and return whether all passed."""
    # Each result lists every environment; those that did not run have no tests.
    results = {}
    for path in paths:
        for name, result in json.loads(Path(path).read_text())["testenvs"].items():
            if result.get("test"):
                results[name] = result
    did_not_run = {"python": {"version": "none"}, "test": []}
    ends = {
        name: passed(name, version, results.get(name, did_not_run))
        for name, version in envs.items()
    }
    for name, (good, python, closing) in ends.items():
        print(f"{name}, {python}: {'passed' if good else 'FAILED'}: {closing}")
        if not good:
            for line in why(results.get(name, did_not_run)):
                print(line)
    return bool(ends) and all(good for good, _, _ in ends.values())


def main(command, *arguments):
    envs = environments()
    if command == "versions":
        print(*versions(envs))
    elif command == "checks":
        print(*checks(envs), sep=",")
    elif command == "github":
        print(*github(envs), sep="\n")
    elif command == "judge":
        return 0 if judge(envs, arguments) else 1
    else:
        raise SystemExit(f"{command!r} is none of: versions, checks, github, judge")
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    sys.exit(main(*sys.argv[1:]))

"""Make a release: version, changelog, wheels, commit, tag and notes, in this clone.

release.py [--dry-run] [--date DATE] [--without-wheels] VERSION [ARGUMENT of .ci/wheels/run.sh...]

What is pushed then, and by whom, is said at the end. --dry-run shows what would change, and changes
nothing. Where a step fails the tree is as it was before.
"""

import argparse
import datetime
import difflib
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "memlimits/__init__.py"
CHANGELOG = "CHANGELOG.md"
UNRELEASED = "## [Unreleased]\n"


class NoReleaseError(Exception):
    """Why there can be none, and what to do."""


def git(*words):
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise NoReleaseError(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout


def numbers(version):
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise NoReleaseError(f"a version is three numbers, as 0.2.0, not {version!r}")
    return tuple(map(int, version.split(".")))


def with_version(text, version):
    """The package with another version, which has to be one that may follow its own."""
    line = re.compile(r'^__version__ = "(.*)"$', re.MULTILINE)
    [old] = line.findall(text)
    major, minor, patch = numbers(old)
    follow = [(major, minor, patch + 1), (major, minor + 1, 0), (major + 1, 0, 0)]
    if numbers(version) not in follow:
        words = ", ".join(".".join(map(str, each)) for each in follow)
        raise NoReleaseError(f"after {old} comes one of {words}, not {version}")
    return line.sub(f'__version__ = "{version}"', text)


def cut(text, version, date):
    """The changelog with what was unreleased under this version, and that part alone."""
    before, found, rest = text.partition(UNRELEASED)
    notes, _, older = f"\n{rest}".partition("\n## [")
    notes = notes[1:]
    if not found or not re.search(r"^- ", notes, re.MULTILINE):
        raise NoReleaseError(f"{CHANGELOG} has nothing under {UNRELEASED.strip()}: say what is new")
    section = f"## [{version}] - {date}\n"
    older = f"\n## [{older}" if older else ""
    return f"{before}{UNRELEASED}\n{section}{notes}{older}", notes.strip() + "\n"


def check_clone(version):
    if changed := git("status", "--porcelain").splitlines():
        raise NoReleaseError(
            f"commit or stash first: {len(changed)} files differ, as {changed[0]!r}"
        )
    if git("rev-parse", "--abbrev-ref", "HEAD").strip() == "HEAD":
        raise NoReleaseError("no branch is checked out that a commit could go to: git switch")
    if git("tag", "--list", f"v{version}"):
        raise NoReleaseError(f"there is a tag v{version} already")


def show(old, new):
    for name, text in new.items():
        lines = old[name].splitlines(True), text.splitlines(True)
        sys.stdout.writelines(difflib.unified_diff(*lines, f"a/{name}", f"b/{name}"))


def build_wheels(arguments):
    done = subprocess.run(["sh", ".ci/wheels/run.sh", *arguments], cwd=ROOT)
    if done.returncode != 0:
        raise NoReleaseError("the wheels are not as they should be: see above")


def release(version, date, arguments, *, dry_run, wheels):
    check_clone(version)
    old = {name: (ROOT / name).read_text() for name in (PACKAGE, CHANGELOG)}
    changelog, notes = cut(old[CHANGELOG], version, date)
    new = {PACKAGE: with_version(old[PACKAGE], version), CHANGELOG: changelog}
    if dry_run:
        show(old, new)
        return f"memlimits: {version} would be released so; nothing was changed"
    head = git("rev-parse", "HEAD").strip()
    try:
        for name, text in new.items():
            (ROOT / name).write_text(text)
        if wheels:
            build_wheels(arguments)
        if changed := [name for name, text in new.items() if (ROOT / name).read_text() != text]:
            raise NoReleaseError(f"{changed[0]} was changed meanwhile: begin anew")
        (ROOT / "dist").mkdir(exist_ok=True)
        path = ROOT / "dist" / f"notes-{version}.md"
        path.write_text(notes)
        git("commit", "--quiet", "--message", f"Release {version}", "--", PACKAGE, CHANGELOG)
        # The headings are no comments, which git would leave out.
        message = f"memlimits {version}\n\n{notes}"
        git("tag", "--annotate", "--cleanup=whitespace", "--message", message, f"v{version}")
    except BaseException:
        git("reset", "--quiet", "--soft", head)
        git("checkout", "--quiet", "HEAD", "--", PACKAGE, CHANGELOG)
        raise
    return (
        f"memlimits: {version} is committed and tagged, its notes are in {path}; to publish it: "
        f"git push origin HEAD v{version}"
    )


def main():
    parser = argparse.ArgumentParser(usage=__doc__, allow_abbrev=False)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--date", type=datetime.date.fromisoformat, default=datetime.date.today())
    parser.add_argument("--without-wheels", action="store_true")
    parser.add_argument("version")
    options, arguments = parser.parse_known_args()
    before = sys.argv[1 : sys.argv.index(options.version)]
    if wrong := [word for word in arguments if options.without_wheels or word in before]:
        parser.error(f"{wrong[0]!r} is no option of a release: those of the wheels stand last")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        numbers(options.version)
        said = release(
            options.version,
            options.date,
            arguments,
            dry_run=options.dry_run,
            wheels=not options.without_wheels,
        )
    except KeyboardInterrupt:
        print("memlimits: no release: interrupted, and all is as it was", file=sys.stderr)
        return 1
    except NoReleaseError as error:
        print(f"memlimits: no release: {error}", file=sys.stderr)
        return 1
    print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())

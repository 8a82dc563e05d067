"""What .ci/release.py makes of a clone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = (".ci/release.py", "CHANGELOG.md", "memlimits/__init__.py")
pytestmark = [
    pytest.mark.skipif(not (ROOT / ".ci").exists(), reason="not in a clone"),
    pytest.mark.skipif(not shutil.which("git"), reason="no git here"),
]


class Clone:
    """A repository with the files of the tree that a release has to do with."""

    def __init__(self, folder):
        self.folder = folder
        for name in FILES:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        # Whatever was released last, something is new.
        self.edit("CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\n### Fixed\n\n- Sleep.\n")
        self.edit("memlimits/__init__.py", r'(?m)^__version__ = ".*"', '__version__ = "0.1.7"')
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()

    def edit(self, name, pattern, text):
        path = self.folder / name
        new, count = re.subn(
            pattern if "(?m)" in pattern else re.escape(pattern), text, path.read_text()
        )
        assert count == 1
        path.write_text(new)

    def run(self, *words):
        who = {
            f"GIT_{one}_{of}": "a@b.c"
            for one in ("AUTHOR", "COMMITTER")
            for of in ("NAME", "EMAIL")
        }
        settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        return subprocess.run(
            list(map(str, words)),
            cwd=self.folder,
            env=os.environ | who | settings,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def git(self, *words):
        done = self.run("git", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "all")

    def release(self, *words):
        return self.run(sys.executable, ".ci/release.py", *words)

    def state(self):
        texts = [(self.folder / name).read_text() for name in FILES]
        return (
            texts,
            self.git("rev-parse", "HEAD"),
            self.git("tag"),
            self.git("status", "--porcelain"),
        )


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


def test_a_release_is_one_commit_and_a_tag_with_the_notes(clone):
    done = clone.release("--without-wheels", "--date", "2031-02-03", "0.2.0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "git push origin HEAD v0.2.0" in done.stdout
    assert clone.git("log", "--format=%s").split("\n")[:2] == ["Release 0.2.0", "all"]
    changed = clone.git("show", "--format=", "--name-only").split()
    assert changed == ["CHANGELOG.md", "memlimits/__init__.py"]
    assert clone.git("status", "--porcelain", "--", *FILES) == ""
    assert '\n__version__ = "0.2.0"\n' in (clone.folder / FILES[2]).read_text()
    changelog = (clone.folder / "CHANGELOG.md").read_text()
    assert "\n## [Unreleased]\n\n## [0.2.0] - 2031-02-03\n\n### Fixed\n\n- Sleep.\n" in changelog
    notes = (clone.folder / "dist/notes-0.2.0.md").read_text()
    assert notes.startswith("### Fixed\n\n- Sleep.\n")
    assert "## [" not in notes
    tag = clone.git("tag", "--list", "--format=%(contents)", "v0.2.0")
    assert tag.strip() == f"memlimits 0.2.0\n\n{notes}".strip()
    assert clone.git("rev-parse", "v0.2.0^{commit}") == clone.git("rev-parse", "HEAD")


def test_nothing_of_the_changelog_is_lost(clone):
    before = (clone.folder / "CHANGELOG.md").read_text().splitlines()
    clone.release("--without-wheels", "0.1.8")
    after = (clone.folder / "CHANGELOG.md").read_text().splitlines()
    added = [line for line in after if line.startswith("## [0.1.8] - ")]
    assert len(added) == 1
    at = after.index(added[0])
    assert after[: at - 1] + after[at + 1 :] == before


def test_a_dry_run_shows_what_would_change(clone):
    before = clone.state()
    done = clone.release("--dry-run", "--date", "2031-02-03", "1.0.0")
    assert done.returncode == 0
    assert '\n-__version__ = "0.1.7"\n+__version__ = "1.0.0"\n' in done.stdout
    assert "\n+## [1.0.0] - 2031-02-03\n" in done.stdout
    assert clone.state() == before


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("0.2", "a version is three numbers, as 0.2.0, not '0.2'"),
        ("v0.2.0", "not 'v0.2.0'"),
        ("0.02.0", "not '0.02.0'"),
        ("0.1.7", "after 0.1.7 comes one of 0.1.8, 0.2.0, 1.0.0, not 0.1.7"),
        ("0.3.0", "not 0.3.0"),
    ],
)
def test_a_version_that_cannot_follow_is_refused(clone, version, said):
    before = clone.state()
    done = clone.release("--without-wheels", version)
    assert done.returncode == 1
    assert done.stderr.startswith("memlimits: no release: ")
    assert said in done.stderr
    assert clone.state() == before


def test_a_tree_that_is_not_clean_is_refused(clone):
    (clone.folder / "new").write_text("")
    done = clone.release("--without-wheels", "0.2.0")
    assert done.returncode == 1
    assert "commit or stash first: 1 files differ, as '?? new'" in done.stderr


def test_a_tag_that_is_there_is_refused(clone):
    clone.git("tag", "v0.2.0")
    done = clone.release("--without-wheels", "0.2.0")
    assert "there is a tag v0.2.0 already" in done.stderr


def test_nothing_new_is_no_release(clone):
    path = clone.folder / "CHANGELOG.md"
    head, _, _ = path.read_text().partition("## [Unreleased]")
    path.write_text(f"{head}## [Unreleased]\n\n## [0.1.7] - 2030-01-01\n\n- Old.\n")
    clone.commit()
    done = clone.release("--without-wheels", "0.2.0")
    assert done.returncode == 1
    assert "has nothing under ## [Unreleased]" in done.stderr


def test_where_the_wheels_fail_all_is_as_before(clone):
    (clone.folder / ".ci/wheels").mkdir()
    (clone.folder / ".ci/wheels/run.sh").write_text(
        "grep -q 0.2.0 memlimits/__init__.py && exit 3\n"
    )
    clone.commit()
    before = clone.state()
    done = clone.release("0.2.0")
    assert done.returncode == 1
    assert "the wheels are not as they should be" in done.stderr
    assert clone.state() == before


def test_the_tree_itself_could_be_released(clone):
    """Its own changelog and version are as the script reads them."""
    for name in FILES:
        shutil.copy(ROOT / name, clone.folder / name)
    clone.git("commit", "--quiet", "--allow-empty", "--all", "--message", "own")
    if "## [Unreleased]\n\n## [" in (ROOT / "CHANGELOG.md").read_text():
        pytest.skip("nothing is unreleased")
    [old] = re.findall(r'(?m)^__version__ = "(.*)"', (ROOT / FILES[2]).read_text())
    major, minor, _ = map(int, old.split("."))
    done = clone.release("--dry-run", f"{major}.{minor + 1}.0")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [("--dryrun", "0.2.0"), ("0.2.0", "--tests", "none")])
def test_a_word_that_nobody_takes_releases_nothing(clone, words):
    before = clone.state()
    done = clone.release("--without-wheels", *words)
    assert done.returncode == 2
    assert "is no option of a release" in done.stderr
    assert clone.state() == before


def test_where_the_tag_fails_there_is_no_commit_either(clone):
    clone.git("config", "tag.gpgsign", "true")
    clone.git("config", "gpg.program", "false")
    before = clone.state()
    done = clone.release("--without-wheels", "0.2.0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no release: git tag: " in done.stderr
    assert clone.state()[:3] == before[:3]


def test_a_head_that_is_no_branch_is_told_of(clone):
    clone.git("checkout", "--quiet", "--detach")
    done = clone.release("--without-wheels", "0.2.0")
    assert done.returncode == 1
    assert "no branch is checked out" in done.stderr


def test_what_the_page_shows_is_run(clone):
    """But for the wheels, which CI makes by the script that the page names."""
    page = (ROOT / "docs" / "releasing.md").read_text()
    wheels, release = re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S)
    assert wheels.split()[1] in (ROOT / ".ci/run").read_text()
    dry, whole = (line.split()[1:] for line in release.splitlines())
    before = clone.state()
    assert clone.run(sys.executable, *dry).returncode == 0
    assert clone.state() == before
    assert clone.run(sys.executable, *whole, "--without-wheels").returncode == 0
    assert clone.git("tag") == f"v{whole[-1]}\n"

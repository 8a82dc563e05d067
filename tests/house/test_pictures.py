"""What docs/pictures/refused.svg shows happens, each time that it is drawn."""

import subprocess
import sys
from xml.etree import ElementTree

import pytest

from support.cgroup import needs_groups
from support.places import ROOT

PICTURES = ROOT / "docs" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"
pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not PICTURES.exists(), reason="not in a clone"),
]


def texts(path):
    return [text.text for text in ElementTree.parse(path).iter(f"{SVG}text")]


@needs_groups
def test_one_program_is_killed_and_the_other_goes_on(tmp_path):
    """The script ends in an error where either ended otherwise."""
    pytest.importorskip("numpy")
    out = tmp_path / "refused.svg"
    words = [sys.executable, PICTURES / "refused.py", out]
    subprocess.run(words, cwd=tmp_path, check=True, timeout=120)
    assert texts(out) == texts(PICTURES / "refused.svg")

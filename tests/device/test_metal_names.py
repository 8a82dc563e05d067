"""Selectors, classes and protocols: what the shim sends and the stand-in declares is Apple's."""

import sys
from pathlib import Path

import pytest

from support.apple import WHEEL, headers, known, names
from support.metal import stand_in
from support.places import OBJC

pytestmark = pytest.mark.skipif(stand_in() is None, reason="not built over the stand-in for Metal")


@pytest.fixture(scope="module")
def apples():
    return known(headers(Path(sys.prefix) / "share" / WHEEL))


def unknown(source, apples):
    return {(what, name) for what, name in names(source) if name not in apples}


@pytest.mark.parametrize("source", sorted(OBJC.glob("*.m")), ids=lambda path: path.name)
def test_every_name_is_apples(source, apples):
    assert unknown(source, apples) == set()


def test_names_are_seen_in_every_form():
    assert names(OBJC / "metal_device.m") >= {
        ("sends", "supportsFamily:"),
        ("sends", "maxBufferLength"),  # as a property
        ("names", "architecture"),
        ("looks up", "MTLResidencySetDescriptor"),
        ("declares", "setPurgeableState:"),
        ("declares", "setLabel:"),  # by a property
        ("has the type", "MTLArchitecture"),
        ("has the type", "MTLCommandQueue"),
    }


PLANTED = """
#import <Metal/Metal.h>

@protocol MTLBufer
- (void)emty;
@end

Class look(id<MTLDevice> device, id<MTLBufer> buffer)
{
    [device newBufferWithLenght:1 options:0];
    [buffer emty];
    if ([device respondsToSelector:@selector(architektur)])
        return NSClassFromString(@"MTLResidencySets");
    return NSClassFromString(@"MTLArchitecture");
}
"""


def test_a_name_that_is_not_apples_is_found(tmp_path, apples):
    source = tmp_path / "planted.m"
    source.write_text(PLANTED)
    assert unknown(source, apples) == {
        ("has the type", "MTLBufer"),
        ("declares", "emty"),
        ("sends", "emty"),
        ("sends", "newBufferWithLenght:options:"),
        ("names", "architektur"),
        ("looks up", "MTLResidencySets"),
    }

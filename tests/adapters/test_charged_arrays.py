"""NumPy's arrays on a budget."""

import numpy as np
import pytest

import memlimits
from support.accounts import charge_for
from support.units import MIB


def test_numpys_arrays_are_charged(govern):
    with memlimits.budget("arrays") as budget:
        array = np.ones(1000)
        assert budget.active == charge_for(8000)
        array.resize(100_000, refcheck=False)
        assert budget.active == charge_for(800_000)
        array.resize(1, refcheck=False)
        assert budget.active == 64
        other = memlimits.zeros(1000)
        assert budget.active == 64 + charge_for(8000)
        assert not other.any()
    del array, other
    assert budget.active == 0


def test_an_array_resized_outside_is_not_charged_any_more(govern):
    with memlimits.budget("arrays") as budget:
        array = np.ones(100_000)
    array.resize(1_000_000, refcheck=False)
    assert budget.active == 0
    assert (array[:100_000] == 1).all()


def test_an_array_resized_inside_stays_within_the_limit(govern):
    array = np.ones(100_000)
    with memlimits.budget("arrays", limit=MIB) as budget:
        with pytest.raises(MemoryError):
            array.resize(1_000_000, refcheck=False)
        refusal = memlimits.last_refusal()
        assert (refusal.blocked_by, refusal.budget) == ("budget", "arrays")
        assert budget.active == 0
    assert array.sum() == 100_000

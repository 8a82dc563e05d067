"""Whether NumPy tells when the memory for an inverse is refused. docs/guides/testing.md runs it."""

import numpy as np
import pytest


@pytest.mark.fail_allocations(level="malloc")
def test_inverse():
    matrix = np.array([[2.0, 1.0], [1.0, 3.0]])
    inverse = np.linalg.inv(matrix)
    assert np.allclose(matrix @ inverse, np.eye(2)), inverse.tolist()

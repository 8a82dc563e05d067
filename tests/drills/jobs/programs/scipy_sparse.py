"""SciPy: sparse matrices are multiplied."""

import scipy.sparse

matrix = scipy.sparse.random_array((60_000, 60_000), density=3e-4, rng=0, format="csr")
product = matrix @ matrix
print(product.nnz, round(float(product.sum()), 3))

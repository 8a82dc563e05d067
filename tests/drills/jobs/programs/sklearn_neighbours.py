"""scikit-learn: clusters, and the distances to them."""

import numpy
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances

points = numpy.random.default_rng(0).normal(size=(200_000, 16))
clusters = KMeans(16, n_init=1, max_iter=10, random_state=0).fit(points)
distances = pairwise_distances(points, clusters.cluster_centers_)
print(distances.shape, round(float(distances.min(axis=1).mean()), 2))

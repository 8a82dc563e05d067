"""scikit-learn: a random forest is fitted."""

import numpy
from sklearn.ensemble import RandomForestClassifier

random = numpy.random.default_rng(0)
points = random.normal(size=(20_000, 8)).astype(numpy.float32)
classes = (random.random(20_000) * 40).astype(int)
forest = RandomForestClassifier(16, random_state=0).fit(points, classes)
print(sum(tree.tree_.node_count for tree in forest.estimators_))

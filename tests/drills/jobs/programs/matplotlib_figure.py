"""matplotlib: a large figure is drawn with Agg, and saved."""

import io

import matplotlib
import numpy

matplotlib.use("Agg")
import matplotlib.pyplot

figure, axes = matplotlib.pyplot.subplots(figsize=(20, 15), dpi=100)
axes.imshow(numpy.add.outer(numpy.arange(1_500), numpy.arange(1_500)) % 255)
axes.plot(numpy.arange(1_500), numpy.arange(1_500) ** 2 / 1_500)
file = io.BytesIO()
figure.savefig(file, format="raw")
print(len(file.getvalue()), figure.canvas.get_width_height())

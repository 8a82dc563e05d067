"""scikit-image: an image is smoothed and divided into regions."""

import numpy
from skimage.filters import gaussian
from skimage.measure import label, regionprops

noise = numpy.random.default_rng(0).random((1_800, 1_800))
smooth = gaussian(noise, 4)
regions = label(smooth > 0.5)
print(regions.max(), sum(int(region.area) for region in regionprops(regions)))

"""OpenCV: an image is made larger, blurred and searched for edges."""

import cv2
import numpy

image = numpy.arange(1_500 * 1_500 * 3, dtype=numpy.uint32).astype(numpy.uint8)
image = image.reshape(1_500, 1_500, 3)
large = cv2.resize(image, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
blurred = cv2.GaussianBlur(large, (0, 0), 3)
edges = cv2.Canny(cv2.cvtColor(blurred, cv2.COLOR_BGR2GRAY), 10, 30)
print(edges.shape, int(large.sum()))

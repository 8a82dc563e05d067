"""onnxruntime: a model of several layers is run."""

import numpy
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
inputs = numpy.ones((8_000, 64), numpy.float32)
(result,) = session.run(None, {"x": inputs})
print(result.shape, round(float(result.mean()), 3))

"""SciPy: Fourier transforms of a signal, and its peaks."""

import numpy
import scipy.fft
import scipy.signal

signal = numpy.sin(numpy.arange(4_000_000) * 0.01)
spectrum = scipy.fft.rfft(signal)
again = scipy.fft.irfft(spectrum)
peaks, _ = scipy.signal.find_peaks(again)
print(len(peaks), int(abs(spectrum).argmax()))

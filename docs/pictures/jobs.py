"""Work on seven jobs, one after the other; the fourth needs more memory than there is."""

import time

import numpy as np

JOBS = [100, 140, 80, 900, 120, 160, 60]  # MiB
PART = 20

for number, needed in enumerate(JOBS, start=1):
    parts = []
    print("begins", number)
    try:
        for _ in range(needed // PART):
            parts.append(np.ones(PART << 17))
            time.sleep(0.03)
        print("done", number)
    except MemoryError:
        print("refused", number)
    parts.clear()
    time.sleep(0.03)

"""pickle: objects are written to bytes and read back."""

import pickle

orders = [(number, f"customer {number % 977}", [number, number * 2]) for number in range(400_000)]
written = pickle.dumps(orders)
again = pickle.loads(written)
print(len(again), sum(items[1] for _, _, items in again))

"""torch: tensors are stacked, sorted and multiplied."""

import torch

parts = [torch.arange(part, part + 1_000_000) for part in range(4)]
stacked = torch.stack(parts)
ordered, _ = stacked.flatten().sort()
print(ordered.numel(), int(ordered[::1000].sum()))

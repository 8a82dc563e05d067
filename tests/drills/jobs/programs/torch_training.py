"""torch: a small network is trained on the CPU."""

import torch

torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Linear(256, 1_024), torch.nn.ReLU(), torch.nn.Linear(1_024, 1)
)
optimiser = torch.optim.Adam(network.parameters())
inputs = torch.randn(8_000, 256)
wanted = inputs.sum(1, keepdim=True)
for _ in range(3):
    optimiser.zero_grad()
    loss = torch.nn.functional.mse_loss(network(inputs), wanted)
    loss.backward()
    optimiser.step()
print(inputs.shape, round(loss.item(), -1))

"""list: numbers are appended one by one, and sorted."""

numbers = []
state = 1
for _ in range(3_000_000):
    state = state * 1103515245 % 2147483647
    numbers.append(state)
print(len(numbers), sorted(numbers)[len(numbers) // 2])

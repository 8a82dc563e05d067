"""concurrent.futures: threads that make texts, whose results are collected."""

from concurrent.futures import ThreadPoolExecutor


def lines(part):
    return [f"part {part} line {number}" for number in range(100_000)]


with ThreadPoolExecutor(4) as pool:
    parts = list(pool.map(lines, range(20)))
print(sum(map(len, parts)), sum(len(line) for part in parts for line in part[::1000]))

"""dict, str: words are counted, and found again by their beginnings."""

counts = {}
for number in range(2_000_000):
    word = f"word {number * 7919 % 1_200_007}"
    counts[word] = counts.get(word, 0) + 1
beginnings = {}
for word in counts:
    beginnings.setdefault(word[:8], []).append(word)
print(len(counts), len(beginnings), sum(counts.values()))

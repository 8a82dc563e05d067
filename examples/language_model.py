"""A small language model of one attention head, whose weights come from a text.

The text is Python's own reference, as ``help()`` has it. A word's vector tells which words stand
near it; the head looks where words like the last two stood before, and expects what followed there.
Nothing is trained: the vectors are eigenvectors of how often words meet.
"""

import re
from collections import Counter
from pydoc_data.topics import topics

import numpy as np

WIDTH = 192  # of a word's vector
NEAR = 4  # words to each side that a word is seen with
MOST_SEEN = 800  # words that the others are told apart by
SHARP = 25.0  # of the head's attention: how much more what is alike counts


def documents(least):
    """Return the topics that have so many words and more, as words; a row of dashes is one."""
    words = re.compile(r"\w+|([^\w\s])\1*")
    texts = [
        [found[0] for found in words.finditer(topics[name].lower())] for name in sorted(topics)
    ]
    return [text for text in texts if len(text) >= least]


class Model:
    """Vectors of words, as the documents use them, and the head's step from word to word."""

    def __init__(self, texts):
        counts = Counter(word for words in texts for word in words)
        self.words = [word for word, _ in counts.most_common()]
        self.number = {word: number for number, word in enumerate(self.words)}
        self.vectors = self._vectors([self.numbers(words) for words in texts])
        self.row = 3 * WIDTH  # floats that a word takes in the cache

    def numbers(self, words):
        return np.array([self.number[word] for word in words])

    def _vectors(self, texts):
        near = np.zeros((len(self.words), MOST_SEEN), np.float32)
        for text in texts:
            for apart in range(1, NEAR + 1):
                for one, other in ((text[apart:], text[:-apart]), (text[:-apart], text[apart:])):
                    seen = other < MOST_SEEN
                    np.add.at(near, (one[seen], other[seen]), 1)
        expected = near.sum(axis=1, keepdims=True) * near.sum(axis=0) / near.sum()
        more = np.log(np.maximum(near / np.maximum(expected, 1e-9), 1))
        _, directions = np.linalg.eigh(more.T @ more)
        vectors = more @ directions[:, -WIDTH:]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def keys_and_values(self, text, start, stop):
        """Return the cache's rows for words of a text: the two before as keys, itself as value."""
        places = np.arange(start, stop)
        one, two = text[np.maximum(places - 1, 0)], text[np.maximum(places - 2, 0)]
        return np.hstack([self._keys(one, two), self.vectors[text[start:stop]]])

    def next_word(self, text, pages):
        """Return the word that is expected behind a text, from the pages of the cache that it has.

        Of the last page only as many rows are looked at as there are words.
        """
        query = self._keys(text[-1:], text[-2:-1])[0]
        rows = len(text) - sum(len(page) for page in pages[:-1])
        pages = [*pages[:-1], pages[-1][:rows]]
        scores = np.concatenate([page[:, : len(query)] @ query for page in pages])
        values = [page[:, len(query) :] for page in pages]
        weights = np.exp(SHARP * (scores - scores.max()))
        ends = np.cumsum([len(page) for page in pages])[:-1]
        parts = zip(np.split(weights, ends), values, strict=True)
        return int((self.vectors @ sum(part @ value for part, value in parts)).argmax())

    def _keys(self, one, two):
        """Of a place with such a word before it, and such a one before that."""
        return np.hstack([self.vectors[one], self.vectors[two] / 2])

"""Serve a language model's requests from a key-value cache that never takes more than it may.

Each request is a document whose last words are predicted one by one. For each word that was read
the model keeps a row of keys and values, in pages within a budget:

    python examples/kv_cache.py --cache 28

A request begins when there is room for it. When a page is refused, the request that began last
gives up its own, and goes on later. So the answers are those of a cache with room for all. The
text is Python's own reference: see language_model.py.
"""

import argparse
from collections import deque

import numpy as np
from language_model import Model, documents

import memlimits

PAGE = 64  # words
PREDICTED = 128  # words of each document
LONGEST = 2400


class Request:
    """A document that was read up to `done`, and pages with the first `kept` of these words."""

    def __init__(self, model, words):
        self.model, self.text = model, model.numbers(words[:LONGEST])
        self.done, self.right = len(self.text) - PREDICTED, 0
        self.give_up()

    def give_up(self):
        self.pages, self.kept = [], 0

    def need(self):
        return (self.done // PAGE + 1) * PAGE * self.model.row * 4

    def fill(self):
        """Have all that was read in the pages; where one is refused, as far as there are any."""
        while self.kept < self.done:
            used = self.kept % PAGE
            stop = min(self.done, self.kept + PAGE - used)
            rows = self.model.keys_and_values(self.text, self.kept, stop)
            if used == 0:
                self.pages.append(memlimits.empty((PAGE, self.model.row), np.float32))
            self.pages[-1][used : used + len(rows)] = rows
            self.kept = stop

    def step(self):
        """Predict the next word, then read it; return whether it was the last."""
        self.fill()
        word = self.model.next_word(self.text[: self.done], self.pages)
        self.right += word == self.text[self.done]
        self.done += 1
        return self.done == len(self.text)


def serve(requests, history):
    """Run all requests, in turns; return how often one had to give up its pages."""
    waiting, running, given_up = deque(requests), [], 0
    while waiting or running:
        if waiting and (not running or memlimits.would_fit(waiting[0].need())):
            running.append(waiting.popleft())
        for request in tuple(running):
            try:
                if request in running and request.step():
                    running.remove(request)
                    request.give_up()
            except MemoryError:  # also of what NumPy computes in, where that is governed
                if len(running) == 1:
                    raise
                running[-1].give_up()
                waiting.appendleft(running.pop())
                given_up += 1
        history.append([sum(page.nbytes for page in request.pages) for request in requests])
    return given_up


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=int, metavar="MIB", help="the budget's limit")
    parser.add_argument("--save", metavar="FILE.npy", help="write what each request held")
    wanted = parser.parse_args()

    model, history = Model(documents(0)), []
    requests = [Request(model, words) for words in documents(500)]
    with memlimits.budget("kv cache", wanted.cache and wanted.cache << 20) as cache:
        given_up = serve(requests, history)
        print(f"cache: at most {cache.peak / 2**20:.1f} MiB, pages given up {given_up} times")
    right = sum(request.right for request in requests)
    print(f"{len(requests)} requests, {right:,} of {len(requests) * PREDICTED:,} words as expected")
    if wanted.save:
        np.save(wanted.save, history)


if __name__ == "__main__":
    main()

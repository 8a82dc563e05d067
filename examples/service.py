"""Answer requests that do not fit now with 503, and go on with the others.

Clients send images of handwritten digits, and the service says which digits they are. What that
takes hangs on how many a client sends: 1.8 MiB for each. So every client has a budget, and what is
more than that is answered with 413, for good. What only the others leave no room for, within the
memory limit of the process, is answered with 503 and Retry-After:

    memlimits run --memory-limit 160MiB examples/service.py

Eight clients in this program send the 1,797 images of digits.py in requests of 4 to 32, over real
sockets, each again as often as it is told to, and first 200 at once.
"""

import argparse
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path

import numpy as np
from digits import load_digits, nearest

import memlimits

OF_A_CLIENT = 64 << 20
CLIENTS = 8
IMAGES, DIGITS = load_digits()


class Handler(BaseHTTPRequestHandler):
    """POST /CLIENT/START/STOP: which digits these images show."""

    def do_POST(self):
        client, *images = self.path.split("/")[1:]
        answer = b""
        try:
            with memlimits.budget(client, limit=OF_A_CLIENT):
                answer, status = DIGITS[nearest(IMAGES, *map(int, images))].tobytes(), 200
        except MemoryError:
            refusal = memlimits.last_refusal()
            status = 413 if refusal and refusal.blocked_by == "budget" else 503
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        if status == 503:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Print nothing: the clients tell how it went."""


def post(port, start, stop, tries):
    """Send a request until it is answered; return the digits, or nothing if it cannot be."""
    client = threading.current_thread().name
    while True:
        began = time.time()
        connection = HTTPConnection("127.0.0.1", port)
        connection.request("POST", f"/{client}/{start}/{stop}")
        response = connection.getresponse()
        found = np.frombuffer(response.read(), DIGITS.dtype)
        connection.close()
        tries.append((began, time.time() - began, stop - start, response.status))
        if response.status != 503:
            return found
        time.sleep(int(response.headers["Retry-After"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--save", metavar="FILE.json", help="write when each request was answered")
    save = parser.parse_args().save

    starts, sizes, tries = [0], cycle([4, 32, 16, 24, 8]), []
    while starts[-1] < len(DIGITS):
        starts.append(min(starts[-1] + next(sizes), len(DIGITS)))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        with ThreadPoolExecutor(CLIENTS, "client") as pool:
            large = pool.submit(post, server.server_port, 0, 200, tries)
            answers = pool.map(
                post, cycle([server.server_port]), starts, starts[1:], cycle([tries])
            )
            right = np.count_nonzero(np.concatenate(list(answers)) == DIGITS)
        server.shutdown()
    print(f"{right} of {len(DIGITS)} digits recognised, {large.result().size} of the 200 at once")
    for status, times in sorted(Counter(status for *_, status in tries).items()):
        print(f"answered with {status}: {times} times")
    if save:
        Path(save).write_text(json.dumps(tries))


if __name__ == "__main__":
    main()

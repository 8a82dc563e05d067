#!/bin/sh
# distributed 2026.8.0: what a task held when it failed stays in the worker until Python's collector runs.
#
# A task makes an array of 200 MB and raises. The client has the error, and drops the future. One would
# have guessed that the array is freed by then: the worker keeps of the error and of its traceback only
# what it pickled. But the error is also held by the frames that its traceback holds, so the array is
# garbage that only the cyclic collector finds, and the worker, where little else is allocated, does not
# run it: it is there a second later, counts as the worker's unmanaged memory, and is gone after
# gc.collect().
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet distributed==2026.8.0 numpy==2.4.6
cat >"$folder/program.py" <<'END'
import gc, time
import distributed

def fail():
    import numpy
    data = numpy.ones(200_000_000, "u1")
    raise ValueError(f"{data.nbytes} bytes")

def held():
    import psutil
    return psutil.Process().memory_info().rss

def start():
    import numpy
    return held()

def collect():
    gc.collect()
    return held()

if __name__ == "__main__":
    with distributed.Client(n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        before = client.submit(start).result()
        future = client.submit(fail)
        print("raised:", future.exception())
        del future
        time.sleep(1)
        print("a second later:", round((client.submit(held).result() - before) / 1e8), "x 100 MB")
        print("after gc.collect():", round((client.submit(collect).result() - before) / 1e8), "x 100 MB")
END
"$folder/venv/bin/python" "$folder/program.py" >"$folder/said" 2>/dev/null
cat "$folder/said"
for line in \
    "raised: 200000000 bytes" \
    "a second later: 2 x 100 MB" \
    "after gc.collect(): 0 x 100 MB"; do
    grep -q "^$line" "$folder/said" || { echo "something else was expected" && exit 1; }
done

#!/bin/sh
# CPython 3.11 to 3.13: a result that ProcessPoolExecutor cannot load is told as the end of a worker.
#
# A worker returns a value whose loading raises in the parent: here a class that looks for a file which
# only the worker has; a MemoryError where the parent has no room for the result does the same. One would
# have guessed that this one future raises that error, as it does where the value cannot be pickled in
# the worker. Instead every future raises BrokenProcessPool, "A process in the process pool was
# terminated abruptly", the workers are ended, and the executor takes no more tasks, although no worker
# had failed. What happened stands in the exception's __cause__ only.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/program.py" <<'END'
import os, sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

class Model:
    def __setstate__(self, state):
        if os.getpid() == state["parent"]:
            raise FileNotFoundError("the weights of the model")

    def __getstate__(self):
        return {"parent": os.getppid()}

def load(_):
    return Model()

def nothing():
    return "a result"

if __name__ == "__main__":
    print("Python", sys.version.split()[0])
    executor = ProcessPoolExecutor(1)
    print("before:", executor.submit(nothing).result())
    try:
        executor.submit(load, 1).result()
    except Exception as error:
        print("raised:", type(error).__name__)
        print("says:", error)
        print("names the cause itself:", "weights" in str(error))
        print("the cause does:", "weights" in str(error.__cause__))
    try:
        executor.submit(nothing)
    except BrokenProcessPool as error:
        print("after:", type(error).__name__)
END
python3 "$folder/program.py" >"$folder/said" 2>/dev/null
cat "$folder/said"
for line in \
    "raised: BrokenProcessPool" \
    "says: A process in the process pool was terminated abruptly" \
    "names the cause itself: False" \
    "the cause does: True" \
    "after: BrokenProcessPool"; do
    grep -q "^$line" "$folder/said" || { echo "something else was expected" && exit 1; }
done

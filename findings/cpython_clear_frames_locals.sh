#!/bin/sh
# CPython 3.11, IPython 9.18.1: what a failed function held stays after traceback.clear_frames().
#
# One would have guessed that clear_frames() lets go of the variables of every frame of a traceback. But
# before Python 3.13 a frame whose f_locals was read keeps the dictionary that was made of them, which
# frame.clear() leaves as it is, and IPython reads it when it shows a traceback: the array of a cell that
# failed is there until f_locals is read once more, which takes out of the dictionary what has no value.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ipython==9.18.1
cat >"$folder/program.py" <<'END'
import gc, sys, traceback, weakref
from IPython.core.interactiveshell import InteractiveShell

class Array:
    pass

def work():
    global there
    array = Array()
    there = weakref.ref(array)
    raise ValueError

def is_there():
    gc.collect()
    return there() is not None

shell = InteractiveShell.instance()
shell.user_ns["work"] = work
shell.run_cell("work()")
print("shown:", is_there())
last = sys.last_value.__traceback__
traceback.clear_frames(last)
print("cleared:", is_there())
while last is not None:
    last.tb_frame.f_locals
    last = last.tb_next
print("read once more:", is_there())
END
HOME=$folder "$folder/venv/bin/python" "$folder/program.py" >"$folder/said"
grep -v "^\s*File\|---" "$folder/said" | tail -3
for line in "shown: True" "cleared: True" "read once more: False"; do
    grep -q "^$line" "$folder/said" || { echo "something else was expected" && exit 1; }
done

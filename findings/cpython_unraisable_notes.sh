#!/bin/sh
# CPython 3.11 to 3.14: an error that cannot be raised is printed without its notes. (3.15 prints them.)
#
# What add_note (PEP 678) attached is printed below the traceback of an error that ends a program or a
# thread. An error in an atexit callback, or in __del__, is printed too ("Exception ignored in ..."), as a
# traceback and in the same words, but without the notes. One would have guessed that every traceback
# that the interpreter prints has them. A program that wants them there needs a sys.unraisablehook of its
# own: the exception that the hook is given does have them.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/program.py" <<'END'
import atexit, sys, threading

def fail(name):
    error = ValueError(f"the error of {name}")
    error.add_note(f"the note of {name}")
    raise error

class Resource:
    def __del__(self):
        fail("__del__")

print("Python", sys.version.split()[0], file=sys.stderr)
thread = threading.Thread(target=fail, args=("a thread",))
thread.start()
thread.join()
Resource()
atexit.register(fail, "atexit")
END
python3 "$folder/program.py" 2>"$folder/said"
grep -E "^Python|ignored|^ValueError|^the note" "$folder/said"
errors=$(grep -c "^ValueError: the error of" "$folder/said")
notes=$(grep "^the note of" "$folder/said")
[ "$errors" -eq 3 ] && [ "$notes" = "the note of a thread" ] ||
    { echo "other notes were expected" && exit 1; }

#!/bin/sh
# Textual 8.2.8: a program that has COLUMNS and LINES in its environment never learns of another size.
#
# Textual takes the terminal's size by shutil.get_terminal_size, also when SIGWINCH says that it has
# changed, and that goes by the variables before it asks the terminal. CPython's readline exports both, so
# each program that is started from one that imported it, such as a test-suite, has those of its start.
# One would have guessed that who draws on a terminal asks the terminal, at least when told of a change.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q textual==8.2.8
cat >"$folder/size.py" <<'END'
import fcntl, os, pty, struct, sys, termios
from textual.app import App

class Size(App):
    def on_mount(self):
        self.set_timer(1, self.end)

    def end(self):
        self.exit(self.size.width)

def size(**environ):
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        os.environ.update(environ)
        os._exit(Size().run())
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:
        pass
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

os.environ.pop("COLUMNS", None)
plain, exported = size(), size(COLUMNS="77", LINES="24")
print(f"a terminal of 100 columns: {plain}; with COLUMNS=77 in the environment: {exported}")
sys.exit((plain, exported) != (100, 77))
END
"$folder/venv/bin/python" "$folder/size.py" || { echo "another size was expected" && exit 1; }

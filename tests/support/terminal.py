"""A real terminal, tmux's, in which a program runs and keys are pressed."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager

from support.patience import until


class Terminal:
    def __init__(self, folder, columns, lines):
        self._tmux = ["tmux", "-S", f"{folder}/tmux", "-f", "/dev/null"]
        self._size = ["-x", str(columns), "-y", str(lines)]

    def tmux(self, *words):
        done = subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True)
        return done.stdout

    def start(self, words, environ):
        """Run a program; the terminal stays when it has ended, and says with which status."""
        pairs = [word for name in environ for word in ("-e", f"{name}={environ[name]}")]
        script = '"$@"; echo "[ended: $?]"; exec cat'
        command = ["sh", "-c", script, "sh", *map(str, words)]
        self.tmux("new-session", "-d", *self._size, *pairs, *command)

    def press(self, *keys):
        self.tmux("send-keys", *keys)

    def type(self, text):
        self.tmux("send-keys", "-l", text)

    def resize(self, columns, lines):
        self.tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def lines(self, *options):
        return self.tmux("capture-pane", "-p", *options).splitlines()

    def text(self, *options):
        return "\n".join(self.lines(*options))

    def says(self, text):
        self._comes(lambda: text in self.text(), text)

    def fills(self, lines, last):
        """Wait until it has so many, the last of which begins so."""
        self._comes(
            lambda: len(found := self.lines()) == lines and found[-1].startswith(last), last
        )

    def _comes(self, condition, text):
        try:
            until(condition)
        except AssertionError:
            raise AssertionError(f"{text!r} is not in:\n{self.text()}") from None

    @property
    def is_full_screen(self):
        return self.tmux("display-message", "-p", "#{alternate_on}").strip() == "1"

    @property
    def shell(self):
        """The pid of what the program runs below."""
        return int(self.tmux("display-message", "-p", "#{pane_pid}"))


@contextmanager
def terminal(columns=100, lines=24):
    """One that is no more afterwards. Its socket's name has to be short."""
    folder = tempfile.mkdtemp()
    one = Terminal(folder, columns, lines)
    try:
        yield one
    finally:
        subprocess.run([*one._tmux, "kill-server"], capture_output=True, env=os.environ)
        shutil.rmtree(folder)

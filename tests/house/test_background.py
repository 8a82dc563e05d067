"""The tests are the same when a shell starts them in the background, where signals are ignored."""

import signal
import subprocess
import sys

from support.places import TESTS
from support.process import execute

SHOW = """
import signal
print([int(n) for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN])
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
AS_THE_TESTS = f"""
import subprocess, sys
sys.path.insert(0, {str(TESTS)!r})
from support.signals import take_signals
take_signals()
subprocess.run([sys.executable, "-c", {SHOW!r}], check=True)
"""


def in_the_background():
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])


def test_no_signal_is_ignored_in_what_the_tests_start():
    plain = execute(SHOW)
    assert plain.stdout.splitlines()[1:] == ["set()", "True"]
    without = execute(SHOW, preexec_fn=in_the_background)
    assert without.stdout.splitlines()[2] == "False"
    assert execute(AS_THE_TESTS, preexec_fn=in_the_background).stdout == plain.stdout


def test_these_tests_ignore_none():
    shown = subprocess.run(
        [sys.executable, "-c", SHOW], capture_output=True, text=True, check=True
    ).stdout
    assert shown.splitlines()[1:] == ["set()", "True"]

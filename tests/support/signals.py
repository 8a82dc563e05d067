"""Signals as a program that is started in the foreground has them."""

import signal

# Python ignores these by itself, and has the programs that it starts take them.
PYTHONS = {signal.SIGPIPE, signal.SIGXFSZ}


def take_signals():
    """Undo what a shell does to what it starts in the background, and nohup to all: nothing is
    ignored or blocked, here and in the programs to come."""
    for number in signal.valid_signals() - PYTHONS:
        if signal.getsignal(number) is signal.SIG_IGN:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])

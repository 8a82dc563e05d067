"""Programs that end in every way."""

from support.programs.program import Program

PROGRAMS: dict[str, Program | str | bytes] = {
    "callbacks": """
        import atexit
        for n in range(3):
            atexit.register(print, n)
        atexit.register(lambda: 1 / 0)
        atexit.unregister(print)
        atexit.register(print, "last")
        """,
    "callback that exits": "import atexit, sys; atexit.register(sys.exit, 7)",
    "callback that is interrupted": """
        import atexit
        def interrupt():
            raise KeyboardInterrupt
        atexit.register(interrupt)
        """,
    "callback of a callback": """
        import atexit
        atexit.register(lambda: atexit.register(print, "inner"))
        """,
    "callback after os._exit": "import atexit, os; atexit.register(print); print(2); os._exit(5)",
    "exit with a long number": "import sys; sys.exit(2**64 + 3)",
    "exit with a float": "import sys; sys.exit(2.5)",
    "exit with bytes": "import sys; sys.exit(b'bytes')",
    "exit with text that cannot be shown": Program(
        "import sys; sys.exit('\\u20ac\\udcff')", env=(("PYTHONIOENCODING", "ascii"),)
    ),
    "exit with an object that cannot be shown": """
        class Bad:
            def __str__(self):
                raise ValueError
        raise SystemExit(Bad())
        """,
    "exit within exit": """
        try:
            exit(1)
        finally:
            exit(2)
        """,
    "exit in a generator": """
        def g():
            yield exit(3)
        list(g())
        """,
    "quit closes input": """
        import sys
        try:
            quit()
        finally:
            print(sys.stdin.closed)
        """,
    "interrupt by a signal": """
        import os, signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def f():
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(100_000):
                pass
        f()
        """,
    "interrupt that is caught": """
        import os, signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(100_000):
                pass
        except KeyboardInterrupt:
            print("caught")
        """,
    "interrupt that is ignored from outside": Program(
        "import signal; print(signal.getsignal(signal.SIGINT))", shell="trap '' INT;"
    ),
    "dispositions of signals": """
        import signal
        for number in signal.valid_signals() - {signal.SIGUSR1}:
            print(number, signal.getsignal(number))
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.sigpending())
        print(signal.set_wakeup_fd(-1), signal.getitimer(signal.ITIMER_REAL))
        """,
    "dispositions that a child inherits": """
        import subprocess
        subprocess.run("grep -E 'Sig(Ign|Blk|Cgt)' /proc/self/status", shell=True)
        subprocess.run("grep SigI /proc/self/status", shell=True, restore_signals=False)
        """,
    "end by a signal": "import os, signal; print(1); os.kill(os.getpid(), signal.SIGTERM)",
    "end by an alarm": """
        import signal; signal.setitimer(signal.ITIMER_REAL, .05); signal.pause()
        """,
    "end by abort": Program("import os; os.abort()", shell="ulimit -c 0;"),
    "thread that goes on": """
        import threading, time
        def work():
            time.sleep(0.1)
            print("thread", flush=True)
        threading.Thread(target=work).start()
        raise SystemExit(2)
        """,
    "daemon that goes on": """
        import threading, time
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        print("end")
        """,
    "executor that goes on": """
        from concurrent.futures import ThreadPoolExecutor
        import time
        ThreadPoolExecutor(1).submit(lambda: (time.sleep(0.1), print("done", flush=True)))
        1 / 0
        """,
    "child of a fork": """
        import os, sys
        print("before", flush=True)
        if os.fork() == 0:
            print("child", flush=True)
            sys.exit(4)
        print(os.waitstatus_to_exitcode(os.wait()[1]))
        """,
    "child of a fork that fails": """
        import os
        if os.fork() == 0:
            raise ValueError("in the child")
        print(os.waitstatus_to_exitcode(os.wait()[1]))
        """,
    "another program in its place": """
        import os, sys
        sys.stdout.flush()
        code = "import sys; print(sys.argv); exit(6)"
        os.execv(sys.executable, [sys.executable, "-c", code, "a"])
        """,
    "buffer at the end": "import sys; sys.stdout.write('x' * 10_000); sys.stderr.write('y')",
    "closed streams at the end": "import os; print(1, flush=True); os.closerange(1, 3); print(2)",
}

"""Programs that fail, and those that look at how failures are shown."""

from support.programs.program import Program

PROGRAMS: dict[str, Program | str | bytes] = {
    "what is being handled": "import sys; print(sys.exc_info(), hasattr(sys, 'last_value'))",
    "hooks": """
        import sys, threading
        print(sys.excepthook is sys.__excepthook__, sys.excepthook)
        print(sys.unraisablehook is sys.__unraisablehook__, sys.displayhook is sys.__displayhook__)
        print(threading.excepthook is threading.__excepthook__)
        """,
    "last exception at exit": """
        import atexit, sys
        @atexit.register
        def show():
            print(sys.last_type, sys.last_value, sys.last_traceback.tb_lineno)
            print(sys.last_traceback.tb_next, sys.last_value.__traceback__ is sys.last_traceback)
        raise KeyError("gone")
        """,
    "hook of threads": """
        import threading
        def hook(args):
            print(args.exc_type, args.exc_value, args.thread.name, args.exc_traceback.tb_lineno)
        threading.excepthook = hook
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        """,
    "exit in a thread": """
        import sys, threading
        thread = threading.Thread(target=sys.exit, args=(3,))
        thread.start()
        thread.join()
        print("on")
        """,
    "exception of a low thread": """
        import _thread, time
        lock = _thread.allocate_lock()
        lock.acquire()
        def f():
            try:
                raise OSError("low")
            finally:
                lock.release()
        _thread.start_new_thread(f, ())
        lock.acquire()
        time.sleep(0.1)
        """,
    "hook of what cannot be raised": """
        import sys
        def hook(args):
            print(args.exc_type, args.exc_value, args.err_msg, args.exc_traceback.tb_lineno)
        sys.unraisablehook = hook
        class C:
            def __del__(self):
                raise ValueError("in del")
        C()
        """,
    "task that nobody waits for": """
        import asyncio
        async def fail():
            raise ValueError("lost")
        async def main():
            asyncio.get_running_loop().set_exception_handler(
                lambda loop, context: print(context["message"], repr(context["exception"])))
            task = asyncio.create_task(fail())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            del task
        asyncio.run(main())
        """,
    "coroutine never awaited": """
        async def f():
            pass
        f()
        """,
    "file never closed": Program("open(__file__)\n", options=("-W", "default")),
    "file never closed in development mode": Program("open(__file__)\n", options=("-X", "dev")),
    "exception of a generator": """
        def g():
            try:
                yield 1
            finally:
                print("closed")
        x = g()
        next(x)
        1 / 0
        """,
    "traceback of text": "exec(compile('def f():\\n  1 / 0\\nf()', '<made>', 'exec'))",
    "traceback of a lambda": """
        f = lambda: {}['x']
        f()
        """,
    "very long traceback": """
        def f(n):
            return n and f(n - 1) or 1 / 0
        f(20)
        """,
    "exception without traceback": "raise ValueError('a').with_traceback(None)\n",
    "error of an import": "from json import nonesuch\n",
    "module that is missing": "import nonesuch.more\n",
    "attribute that is missing": """
        import sys
        sys.versoin
        """,
    "traceback limit": """
        import sys
        sys.tracebacklimit = 1
        def f():
            1 / 0
        f()
        """,
    "no traceback module": """
        import sys
        sys.modules['traceback'] = None
        1 / 0
        """,
    "exception that nobody can print": """
        import sys
        class Bad(Exception):
            def __str__(self):
                raise KeyboardInterrupt
        raise Bad
        """,
    "no standard error": """
        import sys
        sys.stderr = None
        1 / 0
        """,
    "no hook": """
        import sys
        del sys.excepthook
        1 / 0
        """,
    "hook that is no function": """
        import sys
        sys.excepthook = 5
        1 / 0
        """,
}

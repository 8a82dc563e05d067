"""Programs that look at the stack below them."""

from support.programs.program import Program

PROGRAMS: dict[str, Program | str | bytes] = {
    "no frame below": """
        import sys
        try:
            sys._getframe(1)
        except ValueError as error:
            print(error)
        print(sys._getframe().f_back)
        """,
    "stack of inspect": """
        import inspect
        def f():
            return [(frame.function, frame.lineno) for frame in inspect.stack()]
        print(f(), len(inspect.stack()))
        """,
    "print_stack": """
        import traceback
        def f():
            traceback.print_stack()
        f()
        """,
    "walk_stack": """
        import traceback
        print([number for _, number in traceback.walk_stack(None)][-1:])
        print(traceback.extract_stack())
        """,
    "current frames": """
        import sys
        print([frame.f_code.co_name for frame in sys._current_frames().values()])
        print([frame.f_lineno for frame in sys._current_frames().values()])
        """,
    "faulthandler": "import faulthandler; faulthandler.dump_traceback(all_threads=False)",
    "stack level of warnings": """
        import warnings
        def f():
            for level in (1, 2, 3, 4, 50):
                warnings.warn(f"level {level}", stacklevel=level)
        f()
        """,
    "skipped files of warnings": """
        import sys, warnings
        if sys.version_info >= (3, 12):
            warnings.warn("skips", skip_file_prefixes=("/nonesuch",))
            warnings.warn("skips all", skip_file_prefixes=(__file__,))
        else:
            warnings.warn("skips none")
        """,
    "registry of warnings": """
        import warnings
        for n in range(3):
            warnings.warn("again")
            warnings.warn("deprecated", DeprecationWarning)
        print(sorted(map(str, __warningregistry__)))
        """,
    "depth of recursion": """
        def f(n=1):
            global deepest
            deepest = n
            f(n + 1)
        try:
            f()
        except RecursionError as error:
            print(deepest, error)
        """,
    "uncaught recursion": """
        def f():
            f()
        f()
        """,
    "trace function": """
        import sys
        def trace(frame, event, arg):
            print(event, frame.f_code.co_name, frame.f_lineno)
            return trace
        def f(x):
            return x + 1
        sys.settrace(trace)
        f(1)
        sys.settrace(None)
        print(sys._getframe().f_trace)
        """,
    "profile function": """
        import sys
        events = []
        sys.setprofile(lambda frame, event, arg: events.append((event, frame.f_code.co_name)))
        max(1, 2)
        sys.setprofile(None)
        print(events)
        """,
    "logging with its stack": """
        import logging
        logging.basicConfig(format="%(levelname)s %(funcName)s %(lineno)d %(filename)s %(message)s")
        def f():
            logging.warning("here", stack_info=True)
        f()
        logging.warning("there", stacklevel=5)
        """,
    "logging that fails": "import logging; logging.warning('%d', 'x')",
    "frames of tracemalloc": Program(
        """
            import tracemalloc
            kept = [bytes(1000 + n) for n in range(3)]
            for held in kept:
                print(tracemalloc.get_object_traceback(held))
            """,
        options=("-X", "tracemalloc=9"),
    ),
}

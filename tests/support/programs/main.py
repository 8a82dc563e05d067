"""Programs that look at the module that they are."""

from support.programs.program import Program

PROGRAMS: dict[str, Program | str | bytes] = {
    "annotations": """
        import sys, typing, __main__
        debug: bool = False
        limit: "int" = 3
        print(typing.get_type_hints(__main__), __main__.__annotations__)
        """,
    "annotations of the future": """
        from __future__ import annotations
        x: nonesuch = 1
        import __main__
        print(__main__.__annotations__)
        """,
    "no annotations": "import __main__; print(getattr(__main__, '__annotations__', None))",
    "attributes": """
        import __main__
        print(list(vars(__main__)))
        print(__name__, __file__, __spec__, __package__, __doc__, __builtins__)
        print(type(__loader__), __loader__.name, __loader__.path, globals().get("__cached__", 5))
        """,
    "documentation": """
        '''What it does.'''
        print(__doc__)
        """,
    "documentation under -OO": Program(
        """
            '''What.'''
            def f(): 'x'
            print(__doc__, f.__doc__)
            """,
        options=("-OO",),
    ),
    "assertions": "assert 0, 'checked'\n",
    "assertions under -O": Program(
        """
            assert 0, 'checked'
            print(__debug__)
            """,
        options=("-O",),
    ),
    "who holds it": """
        import gc, sys
        print(sys.getrefcount(sys.modules["__main__"]), sys.getrefcount(globals()))
        print(sorted(type(holder).__name__ for holder in gc.get_referrers(globals())))
        """,
    "imported by itself": """
        import sys
        if __name__ == "__main__":
            import program
            print(program.x is globals()["x"] if "x" in globals() else program.x)
        x = 5
        """,
    "reloaded": """
        import importlib, __main__
        try:
            importlib.reload(__main__)
        except Exception as e:
            print(type(e), e)
        """,
    "deleted names": """
        for name in list(globals()):
            del globals()[name]
        print('on')
        """,
    "end of what it holds": """
        import gc, sysconfig
        gc.disable()  # The order is that of generations.
        class C:
            def __init__(self, name):
                # Without the GIL the collector's order is that of addresses.
                self.name = "one" if sysconfig.get_config_var("Py_GIL_DISABLED") else name
            def __del__(self):
                print("end of", self.name, flush=True)
        _hidden, a, b = C("hidden"), C("a"), C("b")
        a.other, b.other = b, a
        def f(held=C("held")):
            return f
        """,
    "end of what a failure holds": """
        class C:
            def __del__(self):
                print("end", flush=True)
        def f():
            c = C()
            1 / 0
        f()
        """,
    "end of what an exit holds": """
        class C:
            def __del__(self):
                print('end')
        c = C()
        exit(3)
        """,
    "own module of a name that is taken": """
        import numbers, random
        print(numbers.__file__ is not None)
        """,
}

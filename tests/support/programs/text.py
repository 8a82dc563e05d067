"""Sources of all kinds, and those that do not compile; as a file, a module, code or input."""

from support.programs.program import Program

PROGRAMS: dict[str, Program | str | bytes] = {
    "empty": b"",
    "only a comment": b"# nothing",
    "no line end": b"print(1)",
    "windows line ends": b"print(1)\r\nprint(2)\r\n1 / 0\r\n",
    "tabs and blanks": b"if 1:\n\tx = 1\n        y = 2\n",
    "zero byte": b"x = 1\nprint('a\x00b')\n",
    "bad utf-8": b"x = 1\ny = '\xff'\n",
    "unknown coding": b"# coding: nonesuch\nprint(1)\n",
    "coding and a mark that disagree": b"\xef\xbb\xbf# coding: latin-1\nprint(1)\n",
    "utf-16": b"\xff\xfep\x00r\x00i\x00n\x00t\x00(\x001\x00)\x00\n\x00",
    "cyrillic": b"# coding: koi8-r\n\xc9\xcd\xd1 = '\xc9\xcd\xd1'\nprint(ascii(\xc9\xcd\xd1))\n",
    "interpreter line": b"#!/usr/bin/env python\nprint('run')\n",
    "formfeed": b"\x0cprint(1)\n",
    "unclosed": b"x = [1,\n     2\n",
    "unterminated": b"print('a)\n",
    "return outside": b"x = 1\nreturn x\n",
    "await outside": b"await x\n",
    "two stars": b"f(**x, *y)\n",
    "assignment to a call": b"f() = 1\n",
    "keyword": b"class = 1\n",
    "bad number": b"x = 0777\n",
    "nesting": b"x = " + b"(" * 300 + b")" * 300 + b"\n",
    "unindent": b"if 1:\n    if 2:\n        x\n   y\n",
    "warning of the compiler": b"x = 1\nif x is 1:\n    print('\\d')\n",
    "the same as an error": Program(b"x = 1\nif x is 1:\n    pass\n", options=("-W", "error")),
    "nonlocal": b"nonlocal x\n",
    "long line": b"x = " + b"1 + " * 300 + b"y\n",
    "syntax error of -c": Program(
        """
            def f(:
              pass
            """,
        how="code",
    ),
    "error of -c": Program(
        """
            def f():
              return 1 / 0

            f()
            """,
        how="code",
    ),
    "indented -c": Program(b"\n    import sys\n    if sys:\n\n        print('in')\n", how="code"),
    "indented -c with blank lines": Program(
        b"  x = '''a\n   \n  b'''\n \n  print([x])", how="code"
    ),
    "badly indented -c": Program(b"  x = 1\n y = 2", how="code"),
    "indented by a tab and blanks -c": Program(b"\tx = 1\n        y = 2", how="code"),
    "nothing but blanks -c": Program(b"  \n ", how="code"),
    "empty -c": Program("", how="code"),
    "arguments of -c": Program(
        "import sys; print(sys.argv, sys.path[0])", words=("-c", "x"), how="code"
    ),
    "names of -c": Program("print({**globals()}.keys(), __loader__, __spec__)", how="code"),
    "unicode in -c": Program("print(ascii('ä€'))", how="code"),
    "source of -c": Program(
        """
            import inspect
            def f(): return 1
            try:
              print(inspect.getsource(f))
            except OSError as e:
              print(e)
            """,
        how="code",
    ),
    "warning of -c": Program("import warnings; warnings.warn('w')", how="code"),
    "interrupt of -c": Program("raise KeyboardInterrupt", how="code"),
    "exit of -c": Program("raise SystemExit('so')", how="code"),
    "syntax error of standard input": Program("x = (\n", how="stdin"),
    "error of standard input": Program(
        """
            def f():
                1 / 0
            f()
            """,
        how="stdin",
    ),
    "arguments of standard input": Program(
        "import sys; print(sys.argv, sys.path[0])", words=("a", "-"), how="stdin"
    ),
    "names of standard input": Program("print({**globals()}.keys(), __loader__)", how="stdin"),
    "reading standard input": Program(
        """
            x = input()
            print('never')
            """,
        how="stdin",
    ),
    "interrupt of a module": Program("raise KeyboardInterrupt", how="module"),
    "names of a module": Program("print({**globals()}.keys(), __name__, __spec__)", how="module"),
    "file at the end": """
        import atexit
        @atexit.register
        def show():
            print("__file__" in globals(), "__cached__" in globals())
        """,
    "file at the end of a failure": """
        import atexit
        atexit.register(lambda: print("__file__" in globals()))
        1 / 0
        """,
    "file at the end of a module": Program(
        """
            import atexit; atexit.register(lambda: print('__file__' in globals()))
            1 / 0
            """,
        how="module",
    ),
}

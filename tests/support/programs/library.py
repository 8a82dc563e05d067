"""Programs of the standard library's, and those that use it."""

from support.programs.program import Program

PROGRAMS: dict[str, Program | str | bytes] = {
    "unittest": """
        import unittest
        class Test(unittest.TestCase):
            def test(self):
                self.assertEqual(1, 2)
        unittest.main(testRunner=unittest.TextTestRunner(stream=open("/dev/null", "w")))
        """,
    "doctest": """
        '''
        >>> 1 + 1
        3
        '''
        import doctest; print(doctest.testmod())
        """,
    "module json.tool": Program("", words=("-m", "json.tool"), stdin=b'{"a": [1]}', how="words"),
    "module with an error": Program("", words=("-m", "json.tool"), stdin=b"{", how="words"),
    "module pdb": Program(
        """
            def f():
                x = 1
                return x
            f()
            """,
        words=("-m", "pdb", "program.py"),
        stdin=b"b 2\nc\nw\np x\nq\n",
        how="words",
    ),
    "module runpy": Program(
        "import sys; print(__name__, sys.argv)", words=("-m", "runpy", "program"), how="words"
    ),
    "module doctest": Program(
        """
            '''
            >>> 1
            2
            '''
            """,
        words=("-m", "doctest", "program.py"),
        how="words",
    ),
    "module trace": Program(
        """
            x = 1
            print(x)
            """,
        words=("-m", "trace", "--trace", "program.py"),
        how="words",
    ),
    "module of a package that fails": Program("", words=("-m", "json.nonesuch"), how="words"),
    "module ast": Program("", words=("-m", "ast"), stdin=b"x = 1\n", how="words"),
    "module code": Program(
        "", words=("-m", "code"), stdin=b"x = 1\nprint(x)\n1 / 0\n", how="words"
    ),
    "pickle": """
        import pickle
        class C:
            pass
        print(pickle.dumps(C()) == pickle.dumps(C()), type(pickle.loads(pickle.dumps(C()))) is C)
        """,
    "source of a function": """
        import inspect
        def f():
            return 1
        print(inspect.getsource(f))
        """,
    "data class": """
        from dataclasses import dataclass
        @dataclass
        class C:
            x: int = 1
        print(C())
        """,
    "named tuple": """
        import collections; T = collections.namedtuple('T', 'a'); print(T.__module__)
        """,
    "enumeration": "import enum; E = enum.Enum('E', 'a'); print(E.__module__, repr(E.a))",
    "python's C interface": """
        import ctypes
        print(ctypes.pythonapi.PyGILState_Check(), ctypes.pythonapi.Py_IsInitialized())
        """,
    "code that is run": """
        import runpy
        if __name__ == '__main__':
            print(runpy.run_path(__file__, {'x': 1})['__name__'])
        else:
            print(x)
        """,
    "interactive console": """
        import code
        console = code.InteractiveConsole()
        console.push("print(1)")
        console.push("1 / 0")
        """,
    "loader of zip files": """
        import sys, zipfile
        with zipfile.ZipFile("made.zip", "w") as archive:
            archive.writestr("inner.py", "def f(): 1 / 0")
        sys.path.insert(0, "made.zip")
        import inner
        print(inner.__file__)
        """,
}

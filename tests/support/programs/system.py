"""Programs that look at the interpreter's state and the process's."""

from support.programs.program import Program

PROGRAMS: dict[str, Program | str | bytes] = {
    "flags": "import sys; print(sys.flags)",
    "flags -b": Program("import sys; print(sys.flags)", options=("-b",)),
    "flags -bb": Program("import sys; print(sys.flags)", options=("-bb",)),
    "flags -B": Program("import sys; print(sys.flags)", options=("-B",)),
    "flags -E": Program("import sys; print(sys.flags)", options=("-E",)),
    "flags -I": Program("import sys; print(sys.flags)", options=("-I",)),
    "flags -P": Program("import sys; print(sys.flags)", options=("-P",)),
    "flags -q": Program("import sys; print(sys.flags)", options=("-q",)),
    "flags -R": Program("import sys; print(sys.flags)", options=("-R",)),
    "flags -s": Program("import sys; print(sys.flags)", options=("-s",)),
    "flags -S": Program("import sys; print(sys.flags)", options=("-S",)),
    "flags -sOBu": Program("import sys; print(sys.flags)", options=("-sOBu",)),
    "flags -X dev": Program("import sys; print(sys.flags)", options=("-X", "dev")),
    "flags -Xutf8=0": Program("import sys; print(sys.flags)", options=("-Xutf8=0",)),
    "flags -X int_max_str_digits=5000": Program(
        "import sys; print(sys.flags)", options=("-X", "int_max_str_digits=5000")
    ),
    "flags -d": Program("import sys; print(sys.flags)", options=("-d",)),
    "flags -Wignore -We": Program("import sys; print(sys.flags)", options=("-Wignore", "-We")),
    "flags --check-hash-based-pycs always": Program(
        "import sys; print(sys.flags)", options=("--check-hash-based-pycs", "always")
    ),
    "options in one word with -m": Program(
        "import sys; print(sys.flags)", options=("-uB",), how="module"
    ),
    "warning options": Program(
        """
            import sys, warnings; print(sys.warnoptions, sys._xoptions); print(warnings.filters)
            """,
        options=("-W", "ignore::FutureWarning", "-Werror", "-X", "a=b", "-Xc"),
    ),
    "filters of warnings": "import warnings; print(warnings.filters)",
    "filters of the environment": Program(
        """
            import warnings; print(warnings.filters); warnings.warn('x', ImportWarning)
            """,
        env=(("PYTHONWARNINGS", "default::ImportWarning"),),
    ),
    "comparing bytes": Program("print(b'' == '')", options=("-b",)),
    "words": Program("import sys; print(sys.argv, sys.orig_argv[1:])", words=("-x", "--quiet", "")),
    "words with options": Program(
        "import sys; print(sys.argv, sys.orig_argv[1:])", options=("-O", "-X", "dev"), words=("-O",)
    ),
    "words that are no text": Program(
        "import sys; print(ascii(sys.argv))", words=("\udcff\udc80",)
    ),
    "path": "import sys; print(sys.path)",
    "path under -I": Program("import sys; print(sys.path)", options=("-I",)),
    "path under -S": Program("import sys; print(sys.path)", options=("-S",)),
    "path under -P": Program("import sys; print(sys.path)", options=("-P",)),
    "path of a module under -P": Program(
        "import sys; print(sys.path)", options=("-P",), how="code"
    ),
    "modules": Program("""
            import sys
            known = ("memlimits", "_cython", "cython", *sys.builtin_module_names)
            print([name for name in sys.modules if not name.startswith(known)])
            """),
    "modules under -c": Program(
        """
            import sys
            known = ("memlimits", "_cython", "cython", *sys.builtin_module_names)
            print([name for name in sys.modules if not name.startswith(known)])
            """,
        how="code",
    ),
    "modules under -S": Program(
        """
            import sys
            known = ("memlimits", "_cython", "cython", *sys.builtin_module_names)
            print([name for name in sys.modules if not name.startswith(known)])
            """,
        options=("-S",),
    ),
    "modules under -m": Program(
        """
            import sys
            known = ("memlimits", "_cython", "cython", *sys.builtin_module_names)
            print([name for name in sys.modules if not name.startswith(known)])
            """,
        how="module",
    ),
    "finders": "import sys; print(sys.meta_path, sys.path_hooks)",
    "names of built-ins": "import builtins; print(dir(builtins))",
    "settings": """
        import sys
        print(sys.getrecursionlimit(), sys.getswitchinterval(), sys.getdlopenflags(), sys.prefix)
        print(sys.executable, sys.hash_info, sys.getfilesystemencoding(), sys.dont_write_bytecode)
        print(sys.gettrace(), sys.getprofile(), sys.get_asyncgen_hooks(), sys.is_finalizing())
        """,
    "collector": """
        import gc
        print(gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks, gc.garbage)
        print(gc.get_freeze_count())
        """,
    "threads": """
        import threading, _thread
        print(threading.enumerate() == [threading.main_thread()], threading.current_thread().name)
        print(threading.main_thread().ident == _thread.get_ident(), _thread._count())
        """,
    "context": "import contextvars; print(list(contextvars.copy_context().items()))",
    # But for the variable by which Pythons below are governed.
    "environment": """
        import os
        print(sorted(pair for pair in os.environ.items() if pair[0] != "MEMLIMITS_CHILDREN"))
        """,
    "environment of a child": """
        import os, subprocess, sys
        code = "import os, sys; print(sorted(os.environ), sys.orig_argv[1:])"
        environ = {name: os.environ[name] for name in os.environ if name != "MEMLIMITS_CHILDREN"}
        subprocess.run([sys.executable, "-c", code], env=environ)
        subprocess.run(["sh", "-c", "echo $0 $#; umask; ulimit -n"])
        """,
    "process": """
        import os, resource
        print(os.getcwd(), os.umask(0), os.getpgrp() == os.getpgid(os.getppid()), os.nice(0))
        print([resource.getrlimit(n) for n in range(resource.RLIM_NLIMITS)])
        """,
    "descriptors": "import os; print(sorted(os.listdir('/proc/self/fd'), key=int))",
    "descriptors under an option": Program(
        "import os; print(sorted(os.listdir('/proc/self/fd'), key=int))", options=("-B",)
    ),
    "locale": """
        import locale, sys; print(locale.setlocale(locale.LC_ALL), sys.stdout.encoding)
        """,
    "locale that is plain": Program(
        """
            import locale, sys; print(locale.setlocale(locale.LC_ALL), sys.stdout, sys.stderr)
            """,
        env=(("LC_ALL", "C"),),
    ),
    "locale without coercion": Program(
        """
            import locale, sys
            print(locale.setlocale(locale.LC_ALL), sys.stdout, sys.flags.utf8_mode)
            """,
        env=(("LC_ALL", "C"), ("PYTHONCOERCECLOCALE", "0"), ("PYTHONUTF8", "0")),
    ),
    "encoding of streams": Program("print('€')", env=(("PYTHONIOENCODING", "ascii"),)),
    "streams": """
        import sys; print(sys.stdin, sys.stdout, sys.stderr, sys.stdout.line_buffering)
        """,
    "unbuffered streams": Program(
        """
            import sys; print(sys.stdout.write_through, end=''); sys.stderr.write('between')
            """,
        options=("-u",),
    ),
    "input": """
        print(input(), input())
        input()
        """,
    "lines of input": Program("import sys; print(list(sys.stdin))", stdin=b"a\r\nb"),
    "closed input": Program("import sys; print(sys.stdin)", shell="exec <&-;"),
    "closed output": Program("print(1)", shell="exec >&-;"),
    "full output": Program("print(1)", shell="exec >/dev/full;"),
    "output of a broken pipe": """
        import os, sys
        r, w = os.pipe()
        os.close(r)
        os.dup2(w, 1)
        print("lost")
        """,
    "reads its own source": "print(open(__file__).read())\n",
    "hash seed": Program("print(hash('a'))", env=(("PYTHONHASHSEED", "7"),)),
    "interactive afterwards": Program(
        "x = 5\n", options=("-i", "-q"), stdin=b"print(x, __name__)\n"
    ),
    "interactive after a failure": Program(
        """
            x = 5
            1 / 0
            """,
        options=("-i",),
        stdin=b"import sys; print(x, sys.last_value)\n",
    ),
    "interactive after an exit": Program(
        """
            x = 5
            exit(4)
            """,
        options=("-iq",),
        stdin=b"print(x)\n",
    ),
    "interactive by the environment": Program("x = 5\n", env=(("PYTHONINSPECT", "1"),)),
    "breakpoint": Program(
        """
            x = 5
            breakpoint()
            print(x)
            """,
        stdin=b"p x\nwhere\nc\n",
    ),
    "faulthandler's own signal": """
        import faulthandler, os, signal
        faulthandler.register(signal.SIGUSR1, all_threads=False)
        os.kill(os.getpid(), signal.SIGUSR1)
        """,
}

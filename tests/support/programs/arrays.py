"""Programs with NumPy."""

from support.programs.program import Program

PROGRAMS: dict[str, Program | str | bytes] = {
    "numpy: what is imported": """
        import sys
        import numpy
        known = ("memlimits", "_cython", "cython", *sys.builtin_module_names)
        print([name for name in sys.modules if not name.startswith(known)])
        """,
    "numpy: warning": """
        import numpy as np
        print(np.float64(1) / 0)
        np.array([1.0]) / 0
        """,
    "numpy: warning as error": Program(
        """
            import numpy as np
            np.array([1.0]) / 0
            """,
        options=("-W", "error"),
    ),
    "numpy: too much": """
        import numpy as np
        np.ones(1 << 60)
        """,
    "numpy: error": """
        import numpy as np
        np.ones(3) + np.ones(4)
        """,
    "numpy: numbers": """
        import numpy as np
        rng = np.random.default_rng(5)
        x = rng.normal(size=(200, 200))
        print(np.linalg.svd(x)[1][:3], (x @ x).sum(), np.sort(x.ravel())[::5000])
        print(np.fft.fft(x[0])[:2])
        """,
    "numpy: text": """
        import numpy as np
        print(np.array(['a', 'bcd']), np.arange(5).astype(object))
        """,
    "numpy: resize": """
        import numpy as np
        x = np.arange(5)
        x.resize(9, refcheck=False)
        print(x)
        """,
    "numpy: handler": """
        from numpy._core.multiarray import get_handler_name, get_handler_version
        import numpy as np
        print(get_handler_name(), get_handler_name(np.ones(3)), get_handler_version())
        """,
    "numpy: files": """
        import io, numpy as np
        file = io.BytesIO()
        np.savez(file, a=np.arange(5))
        file.seek(0)
        print(np.load(file)["a"])
        """,
    "numpy: threads": """
        import numpy as np
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(4) as pool:
            print(list(pool.map(lambda n: np.full(100_000, n).sum(), range(8))))
        """,
    "numpy: in a callback": """
        import atexit
        atexit.register(lambda: print(__import__('numpy').ones(3)))
        """,
    "numpy: arrays at the end": """
        import numpy as np
        kept = [np.ones(n) for n in (1, 1000, 10**6)]
        """,
    "numpy: environment": """
        import os
        os.environ["NPY_DISABLE_CPU_FEATURES"] = "AVX512F AVX512_SKX AVX512CD AVX512_ICL X86_V4"
        import warnings
        warnings.simplefilter("ignore")
        import numpy
        print(sorted(numpy._core._multiarray_umath.__cpu_features__.items()))
        """,
    "numpy: reloaded": Program("""
            import importlib, numpy
            importlib.reload(numpy)
            print(numpy.ones(2))
            """),
    "numpy: its specification": """
        import numpy
        print(type(numpy.__spec__), numpy.__spec__, type(numpy.__loader__), numpy.__file__)
        """,
}

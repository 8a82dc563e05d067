"""The `memlimits run` command beside the interpreter alone."""

import os
import re
import subprocess
import sys
import textwrap

RUN = ("-m", "memlimits", "run")


def execute(*words, env=os.environ, **options):
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        timeout=60,
        # The first run must leave no bytecode to the second, which would not compile then.
        env={**env, "PYTHONDONTWRITEBYTECODE": "1"},
        **{"input": b"some input\n", **options},
    )


def without_report(stderr):
    """Cut the report off, which has to be there and to be the last thing."""
    program, mark, report = stderr.partition(b"memlimits: peak: ")
    assert mark
    assert all(line.startswith(b"memlimits: ") for line in report.splitlines()[1:])
    return program


def without_addresses(output):
    return re.sub(rb"0x[0-9a-f]+", b"0x", output)


def assert_same(cwd, *words, command=RUN, **options):
    """Compare everything that a caller can see, and return what the interpreter gave."""
    plain = execute(*words, cwd=cwd, **options)
    ours = execute(*command, *words, cwd=cwd, **options)
    assert without_addresses(without_report(ours.stderr)) == without_addresses(plain.stderr)
    assert without_addresses(ours.stdout) == without_addresses(plain.stdout)
    assert ours.returncode == plain.returncode
    return plain


def write(path, source):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))
    return path


def runner(directory):
    """What runs a source under `memlimits run` in a directory, and has it end with `code`."""

    def run(source, *options, args=(), code=0, **keywords):
        (directory / "program.py").write_text(source)
        done = subprocess.run(
            [sys.executable, *RUN, *options, "program.py", *args],
            **{
                "cwd": directory,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "timeout": 60,
                **keywords,
            },
        )
        assert done.returncode == code, done.stderr
        return done

    return run

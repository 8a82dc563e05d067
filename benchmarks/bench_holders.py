"""What noting who allocates takes, as `memlimits run` does it, of NumPy and Python's objects."""

from contextlib import closing

from bench_numpy import SMALL_EXPRESSIONS
from bench_objects import DOCUMENT, QUICK, WORK
from process import Worker
from session import Session

TITLE = "Who allocates is noted, in one of two processes"
COUNTS = [1, 1_000, 100_000, 1_000_000]
QUICK_COUNTS = [1_000]
GOVERNED = "import memlimits; memlimits.govern_numpy()"
NOTED = f"{GOVERNED}; memlimits.set_holder_sampling(1 << 20)"
INPUTS = "r = np.random.default_rng(0); a, b, c = (r.random({count}) for _ in range(3))"


def run(session: Session) -> None:
    with closing(Worker(governs="python")) as without, closing(Worker(governs="python")) as noting:
        works = {label: (WORK[label], DOCUMENT) for label in (QUICK if session.quick else WORK)}
        for count in QUICK_COUNTS if session.quick else COUNTS:
            for source in SMALL_EXPRESSIONS:
                label = f"{source.format(count='n')}, {count:,} doubles"
                works[label] = source.format(count=count), INPUTS.format(count=count)
        for label, (source, setup) in works.items():
            sides = {
                "without": without.side(source, f"{GOVERNED}\n{setup}"),
                "noted": noting.side(source, f"{NOTED}\n{setup}"),
            }
            results = session.compare(label, sides, base="without")
            session.judge_ratio("holders", label, results, "noted", "without")
            without.forget()
            noting.forget()

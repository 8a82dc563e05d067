"""Row 6: NumPy under govern_numpy(), against NumPy as it is and over other allocators."""

from peers import mimalloc_path
from process import Worker, workers
from session import MIB, Session

TITLE = "NumPy, in a process for each allocator"
HUGE = str(1 << 40)
ENVIRONMENTS = {
    "default": {},
    # What a user can get from glibc alone: nothing mapped anew, nothing returned.
    "tuned glibc": {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": HUGE,
        "MALLOC_TOP_PAD_": str(64 * MIB),
    },
}
COUNT = 4 << 20
EXPRESSIONS = ["a + b", "a * b + c", "np.sqrt(a * a + b * b) - c * a", "a.astype('f4') * 2"]
INPUTS = "r = np.random.default_rng(0); a, b, c = (r.random({count}) for _ in range(3))"
SMALL_COUNTS = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000]
QUICK_SMALL_COUNTS = [1, 1_000, 100_000]
SMALL_EXPRESSIONS = ["a + b", "np.sqrt(a)", "a.copy()", "np.empty({count})", "np.zeros({count})"]
ZEROS = 32 * MIB  # doubles: 256 MiB
# Sizes that come and go: what is kept for reuse must not add up.
MIXED = """
r = np.random.default_rng(0)
for count in r.permutation([i << 19 for i in range(2, 17)]):
    a, b, c = (np.full(count, x) for x in (1.0, 2.0, 3.0))
    d = np.sqrt(a * a + b * b) - c * a
del a, b, c, d
"""


def run(session: Session) -> None:
    environments = dict(ENVIRONMENTS)
    if path := mimalloc_path():
        environments["mimalloc"] = {"LD_PRELOAD": path}
    else:
        session.report.miss("mimalloc", "pip install cmeel-mimalloc")
    with workers(environments) as found:
        _large(session, found)
        _small(session, found)
        _zeros(session, found)
        _nothing_kept(session, found)
    with workers(environments) as found:
        _resident(session, found)


def _large(session: Session, found: dict[str, Worker]) -> None:
    for source in EXPRESSIONS[::2] if session.quick else EXPRESSIONS:
        label = f"{source}, 4 Mi doubles"
        sides = {
            name: worker.side(source, INPUTS.format(count=COUNT)) for name, worker in found.items()
        }
        results = session.compare(label, sides, base="default")
        session.judge_ratio("default NumPy", label, results, "default", "governed")
        session.judge_ratio("tuned glibc", label, results, "tuned glibc", "governed")
        session.judge_ratio("nothing slower", label, results, "default", "governed")
        _forget(found)


def _small(session: Session, found: dict[str, Worker]) -> None:
    for count in QUICK_SMALL_COUNTS if session.quick else SMALL_COUNTS:
        for source in SMALL_EXPRESSIONS:
            label = f"{source.format(count='n')}, {count:,} doubles"
            sides = {
                name: found[name].side(source.format(count=count), INPUTS.format(count=count))
                for name in ("governed", "default")
            }
            results = session.compare(label, sides, base="default")
            session.judge_ratio("nothing slower", label, results, "default", "governed")
        _forget(found)


def _zeros(session: Session, found: dict[str, Worker]) -> None:
    zeros = f"z = np.zeros({ZEROS})"
    dirty = f"z = None; d = np.empty({ZEROS}); d.fill(1)"
    cases = {
        "256 MiB, untouched": (zeros, "z = None"),
        "256 MiB, after dirty use": (zeros, f"{dirty}; d = None"),
        "256 MiB, after dirty use, its release included": (f"d = None; {zeros}", dirty),
    }
    for label, (source, before) in cases.items():
        sides = {name: found[name].side(source, before=before) for name in ("governed", "default")}
        results = session.compare(f"np.zeros, {label}", sides, base="default", most=1)
        session.judge_ratio("zeros", label, results, "governed", "default")
    _forget(found)


def _nothing_kept(session: Session, found: dict[str, Worker]) -> None:
    """Arrays as long as those that the C library maps each time, too."""
    before = {"governed": "import memlimits; memlimits.set_cache_limit(0)", "default": ""}
    label = "np.empty, 32 MiB, with a cache limit of 0"
    source = f"np.empty({32 * MIB}, np.uint8)"
    sides = {name: found[name].side(source, before=words) for name, words in before.items()}
    results = session.compare(label, sides, base="default")
    session.judge_ratio("nothing kept", label, results, "governed", "default")
    found["governed"].side("pass", before="import memlimits; memlimits.set_cache_limit(None)")(1)
    _forget(found)


def _resident(session: Session, found: dict[str, Worker]) -> None:
    peaks = {}
    for name, worker in found.items():
        worker.side("pass", MIXED)(1)
        peaks[name] = worker.peak_resident()
        print(f"    peak resident, {name}: {peaks[name] / MIB:,.0f} MiB", flush=True)
    session.judge("resident", "arrays of 8 to 64 MiB", peaks["governed"] / peaks["default"])


def _forget(found: dict[str, Worker]) -> None:
    for worker in found.values():
        worker.forget()

"""Run real jobs at half of the memory that they need, and at twice that; print how each ended.

    python tests/drills/jobs [options] [JOB...]

As root, with memory control groups of version 1, in a Python that has memlimits and the libraries;
jobs whose library is missing are left out. Exits with 1 where one was killed, crashed, hung, had
a wrong result or an exception without a refusal behind it, or failed with twice its need.
"""

import argparse
import json
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from support import jobs
from support.units import MIB


def arguments():
    parser = argparse.ArgumentParser(
        prog="python tests/drills/jobs",
        description=__doc__.partition("\n")[0],
    )
    parser.add_argument("jobs", metavar="JOB", nargs="*", help="all that can be run unless given")
    parser.add_argument(
        "--options",
        action="append",
        metavar="WORDS",
        help='of `memlimits run`, such as "--govern all --count given"; may be repeated',
    )
    parser.add_argument(
        "--share", action="append", type=float, help="of what each needs; 0.5 and 2 unless given"
    )
    parser.add_argument("--folder", help="where data, needs and ends are kept from run to run")
    parser.add_argument("--table", action="store_true", help="print a table in Markdown at the end")
    return parser.parse_args()


def chosen(names):
    for job in names or jobs.PROGRAMS:
        if missing := jobs.missing(job):
            say(f"{job}: left out, without {', '.join(missing)}")
        else:
            yield job


def say(text):
    print(text, file=sys.stderr, flush=True)


def needs_of(job, folder, interpreters):
    """What it needs, measured or kept."""
    kept = folder / f"{job}-{zlib.crc32(jobs.PROGRAMS[job].read_bytes())}.json"
    if kept.exists():
        return jobs.Need(*json.loads(kept.read_text()))
    need = jobs.measure(job, folder, interpreters)
    kept.write_text(json.dumps(need))
    return need


def run(names, options, shares, folder):
    """How each job ended: by job, options and share."""
    interpreters = jobs.own(folder)
    say(f"an interpreter has {interpreters / MIB:.1f} MiB")
    ends = {}
    for job in names:
        need = needs_of(job, folder, interpreters)
        jobs.make_files(job, folder)
        for words in options:
            for share in shares:
                end = jobs.run_within(job, need, share, words.split(), folder, interpreters)
                ends[job, words, share] = need, end
                say(
                    f"{job}: {share:g} of {need.nbytes / MIB:.0f} MiB, {words or 'no options'}: "
                    f"{end.kind}, refusals {end.refusals}; {end.error[:150]}; {end.said}"
                )
    return ends


def faults(ends):
    return [
        f"{job} with {share:g} of its need, {words or 'no options'}: {end.kind}: {end.error}"
        for (job, words, share), (_, end) in ends.items()
        if end.kind in jobs.FAULTS or (share >= 2 and end.kind != jobs.RIGHT)
    ]


def table(ends):
    """In Markdown: a row for each job, a column for each way to run it."""
    ways = list(dict.fromkeys((words, share) for _, words, share in ends))
    heads = [f"{share:g}, `{words or 'run'}`" for words, share in ways]
    yield "| job | needs | " + " | ".join(heads) + " |"
    yield "|---" * (len(ways) + 2) + "|"
    for job in dict.fromkeys(job for job, _, _ in ends):
        need, _ = ends[job, *ways[0]]
        kinds = [ends[job, *way][1].kind for way in ways]
        yield f"| `{job}` | {need.nbytes / MIB:.0f} MiB | " + " | ".join(kinds) + " |"


def sums(ends):
    """How many ended how, for each way to run them."""
    for way in dict.fromkeys((words, share) for _, words, share in ends):
        kinds = Counter(end.kind for key, (_, end) in ends.items() if key[1:] == way)
        parts = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
        said = sum(bool(end.said) for key, (_, end) in ends.items() if key[1:] == way)
        yield (
            f"{way[1]:g} of the need, {way[0] or 'no options'}: {kinds.total()} jobs: {parts}; "
            f"a sentence on what was refused {said}"
        )


def main():
    wanted = arguments()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(wanted.folder or made)
        folder.mkdir(exist_ok=True)
        options = wanted.options or ["--govern all"]
        ends = run(chosen(wanted.jobs), options, wanted.share or [0.5, 2], folder)
    if wanted.table:
        print(*table(ends), sep="\n", end="\n\n")
    found = faults(ends)
    print(*sums(ends), *found, sep="\n")
    print(f"{len(found)} of {len(ends)} runs ended as none may" if found else "all ended well")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

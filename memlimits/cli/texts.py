"""What help, manual pages and completion say of the commands; none of it is needed to run one."""

from memlimits.sizes import FORM

DOCS = "docs/ in the source"

COMMANDS = {
    "run": "run a program inside memory limits",
    "top": "show what processes and pools hold, live",
    "pool": "make, show, change and remove budgets that processes share",
    "convert": "make a report, a flame graph, a trace or a table of a recording",
    "plot": "draw a recording, for papers and slides",
    "info": "show the device, the limits and the counters",
    "metrics": "show pools as metrics for Prometheus, or serve them",
    "man": "show a manual page, or write all of them into a folder",
    "completion": "print what has a shell complete this command's words",
}

# What people want first, and what to type for it.
FIRST = {
    "a limit for a program, which gets a MemoryError there, and is not killed": (
        "memlimits run --memory-limit 2GiB train.py"
    ),
    "what is running, and what it holds": "memlimits top",
    "who holds it, line by line, as a page for a browser": (
        "memlimits run --record a.rec train.py && memlimits convert a.rec --to html"
    ),
}

# What to type, and what for.
EXAMPLES = {
    "run": {
        "memlimits run --memory-limit 2GiB train.py": "a limit for a program and all it starts",
        "memlimits run --memory-limit 50% --policy wait -m pytest": "they wait for each other",
        "memlimits run --holders 1MiB --memory-limit 2GiB train.py": "refusals say who holds most",
    },
    "top": {
        "memlimits top": "all that you may see",
        "memlimits top 4711": "one process, and those that it started",
        "memlimits top --once --json": "for programs",
    },
    "pool": {
        "memlimits pool create gpu0 --limit 20GiB": "a budget",
        "memlimits run --pool gpu0 serve.py": "a program that shares it with others",
        "memlimits pool list gpu0": "who is in it, and what each uses",
    },
    "pool create": {"memlimits pool create gpu0 --limit 20GiB": "its members hold 20 GiB at most"},
    "pool list": {"memlimits pool list": "all of them, and who is in them"},
    "pool set": {"memlimits pool set gpu0 --limit 30GiB": "at once, for members that run, too"},
    "pool remove": {"memlimits pool remove gpu0": "once nobody is in it"},
    "convert": {
        "memlimits run --record a.rec train.py": "makes the recording",
        "memlimits convert a.rec --to html": "a report, a.html",
        "memlimits convert a.rec --to flamegraph --at 12.5": "who held what after 12.5 s",
    },
    "plot": {"memlimits plot a.rec -o a.png": "what it held over time, and its limit"},
    "info": {"memlimits info": "how much memory there is, and what the limits are by default"},
    "metrics": {
        "memlimits metrics": "all pools, once",
        "memlimits metrics --port 9123": "served at http://127.0.0.1:9123/metrics",
    },
    "man": {
        "memlimits man run | man -l -": "the page of `memlimits run`, wherever it is installed",
        "memlimits man --into ~/.local/share/man/man1": "all of them, for man to find",
    },
    "completion": {
        'eval "$(memlimits completion bash)"': "in ~/.bashrc",
        'eval "$(memlimits completion zsh)"': "in ~/.zshrc, below compinit",
        "memlimits completion fish | source": "in ~/.config/fish/config.fish",
    },
}

RUN_ABOUT = (
    "Run an unchanged Python program inside memory limits. Each Python that it starts has the same."
)
RUN_USAGES = ("script.py [ARGS...]", "-m module [ARGS...]", "-c code [ARGS...]", "- [ARGS...]")

# The options of `memlimits run`, in this order: what stands for the value, and what it is for.
RUN_OPTIONS = {
    "--memory-limit": (
        "SIZE",
        "the most memory to hold, for all processes of the program together; strict unless "
        "--policy says otherwise",
    ),
    "--per-process": ("", "the memory limit is each process's own"),
    "--pool": (
        "POOL",
        "all processes of the program join this pool (memlimits pool create); strict unless "
        "--policy says otherwise",
    ),
    "--count": (
        "WHAT",
        'what the memory limit is on: "given" to the program, touched or not; of it what is '
        '"resident"; or all that the "process" holds, governed or not. "given" unless --govern all '
        'makes it "resident". The last two can be passed, by what is touched after it was given or '
        "is not governed",
    ),
    "--cache-limit": ("SIZE", "the most memory to keep for reuse"),
    "--wired-limit": ("SIZE", "the most memory to keep from being swapped out"),
    "--policy": (
        "POLICY",
        'at the memory limit: "strict" refuses, "guideline" goes on as long as the system has '
        'memory, "wait" waits for others to free some',
    ),
    "--timeout": ("S", "seconds to wait with --policy wait; 60 unless given"),
    "--govern": (
        "LEVEL",
        'what counts: "numpy", arrays; "python", Python\'s objects, too; "all", whatever malloc '
        'gives to any library; "python" unless given',
    ),
    "--holders": (
        "SIZE",
        "note who allocates each block of SIZE and more, and one in SIZE of shorter ones, such as "
        "1MiB: a refusal says who holds most then; nobody unless given",
    ),
    "--record": (
        "FILE",
        "record who holds how much, and when, in all processes of the program, for memlimits plot "
        "and convert; with holders of 1MiB unless --holders is given",
    ),
    "--report": ("FILE.json", "write the closing report to this file as well"),
    "--quiet": ("", "nothing of ours on standard error: no report, no refusals of C code"),
    "--help": ("", "show this and exit"),
}
SHORT = {"--help": "-h"}

SIZES = f"SIZE is {FORM}."
# What the interpreter takes before a program, which completion offers; its other options are rare.
PYTHONS = {"-X": "OPTION", "-W": "ACTION", "-m": "MODULE", "-c": "CODE"}
RUN_NOTES = (
    "Python's own options before the program (-X, -W, -O, -u, -B, -I, ...) are passed on to it.",
    "The script may also be a directory or a zip file with a __main__.py inside.",
    "Everything after it, or after the module or the code, is the program's own.",
    "SIGUSR1 has the program print its statistics to standard error, and go on.",
)

STATUS = {
    "run": "That of the program; 2 where it was not started, and standard error says why.",
    "top": "0; 1 where what is to be looked at is not there; 2 where it cannot be done; 141 where "
    "whoever reads standard output has had enough.",
}
STATUS_OF_OTHERS = (
    "0; 2 where it cannot be done, or standard output cannot be written, and standard error says "
    "why; 141 where whoever reads standard output has had enough."
)


def examples(command: str) -> str:
    """Return a command's examples as its help shows them."""
    lines = [f"  {words}\n      {what}" for words, what in EXAMPLES[command].items()]
    return "\n".join(["examples:" if len(lines) > 1 else "example:", *lines]) + "\n"

"""Draw the pictures of these pages: `python docs/how/draw.py` writes an SVG file for each."""

from pathlib import Path

from svg import Drawing


def malloc():
    drawing = Drawing(
        612,
        "The way of a request for n bytes",
        """From top to bottom: this thread's heap, what is idle elsewhere, the look at the limits,
        the reservation, the system's mapping, the confirmation. The first two may end it with a
        block; the look at the limits ends it with a refusal, has it wait, or lets it pass.""",
    )
    left, wide, middle = 20, 300, 170
    drawing.box(left, 16, wide, "A request for n bytes", "of NumPy, Python, malloc or allocate")
    drawing.box(
        left,
        96,
        wide,
        "This thread's heap",
        "has an idle block that fits,",
        "within the heap's bounds",
        height=68,
    )
    drawing.box(
        left,
        204,
        wide,
        "Idle memory elsewhere",
        "split here, or left by ended threads;",
        "near a bound also other heaps'",
        height=68,
    )
    drawing.box(
        left,
        312,
        wide,
        "Judge: does growth by n fit",
        "the limit, the pool, the system's room?",
        "Perhaps once idle memory is returned",
        kind="pending",
        height=68,
    )
    drawing.box(
        left,
        420,
        wide,
        "Reserve: n bytes are pending",
        "what is returned leaves in the same step",
        kind="pending",
    )
    drawing.box(
        left, 500, wide, "Map, then confirm", "or cancel, if the system has none", kind="active"
    )
    for top, bottom in ((66, 96), (164, 204), (272, 312), (380, 420), (470, 500)):
        drawing.arrow((middle, top), (middle, bottom))
    for y in (190, 298):
        drawing.text(middle + 10, y, "no", "start")
    drawing.text(middle + 10, 405, "it fits", "start")
    drawing.box(372, 96, 92, "a hit", "nobody", "else looks", kind="cache", height=68)
    drawing.box(372, 204, 92, "a hit", "nothing", "grew", kind="cache", height=68)
    drawing.box(
        372, 300, 92, "strict:", "refused", "wait: after", "its time", kind="refused", height=92
    )
    drawing.box(372, 500, 92, "a block", "a miss", kind="active", height=50)
    for y in (130, 238, 346, 525):
        drawing.arrow((320, y), (372, y))
    for y in (122, 230):
        drawing.text(344, y, "yes")
    drawing.text(346, 338, "no")
    drawing.lines(
        20, 578,
        "Under guideline what does not fit is let through all the same,",
        "while the system has the memory, and counted as an overrun.",
    )  # fmt: skip
    return drawing


def free():
    drawing = Drawing(
        560,
        "Where a block goes that is freed",
        """The page map finds the resource that the address lies in, and that names the heap the
        block came from. A piece of a slab becomes slack, or, if it was the last, the slab is
        idle. A whole resource is idle. Idle memory serves the next request, or goes back to the
        system.""",
    )
    drawing.box(90, 16, 300, "free(address), on any thread")
    drawing.box(90, 78, 300, "The page map", "which resource does the address lie in?")
    drawing.box(90, 158, 300, "Its home: the heap it came from", "whichever thread frees it")
    drawing.arrow((240, 48), (240, 78))
    drawing.arrow((240, 128), (240, 158))
    drawing.arrow((170, 208), (125, 244))
    drawing.arrow((310, 208), (355, 244))
    drawing.box(
        20,
        244,
        210,
        "A piece of a slab",
        "up to 32 KiB",
        "others of it are in use: slack",
        kind="slack",
        height=68,
    )
    drawing.box(250, 244, 210, "A whole resource", "longer than 32 KiB", kind="active", height=68)
    drawing.arrow((125, 312), (125, 356))
    drawing.text(135, 338, "it was the last", "start")
    drawing.arrow((355, 312), (355, 356))
    drawing.box(
        20,
        356,
        440,
        "Idle: the cache of that heap",
        "slabs by their size class, resources by length, all by age",
        kind="cache",
    )
    for x, lines in (
        (20, ("The next request", "of that size", "takes it: a hit")),
        (173, ("Growth that needs", "the room returns", "the oldest first")),
        (326, ("Cache limit, trim,", "idle timeout and", "pressure, likewise")),
    ):
        drawing.arrow((x + 67, 406), (x + 67, 440))
        drawing.box(x, 440, 134, *lines, height=68)
    drawing.lines(20, 536, "What is returned leaves the footprint when the system has it.")
    return drawing


def heaps():
    drawing = Drawing(
        486,
        "Heaps of threads, and what they share",
        """Two threads have a heap each, with slabs and whole resources, of which some is in use and
        some idle. A block that thread 2 frees goes back to heap 1, where it came from. Below them
        one atomic word counts what is active and all headroom, and one lock has the footprint.""",
    )
    for x, number in ((16, 1), (248, 2)):
        drawing.shape(x, 16, 216, 300, "plain")
        drawing.text(x + 108, 40, f"Heap of thread {number}", strong=True)
        drawing.text(x + 14, 66, "slab of 64 B pieces", "start")
        used = (1, 1, 0, 1, 1, 0, 1, 1) if number == 1 else (1, 0, 0, 0, 1, 0, 0, 0)
        drawing.bar(x + 14, 74, 26, [(23, "active" if part else "slack", "") for part in used])
        drawing.text(x + 14, 124, "slab of 4 KiB pieces", "start")
        used = (1, 1, 1, 1) if number == 1 else (0, 0, 0, 0)
        kind = "slack" if any(used) else "cache"
        drawing.bar(x + 14, 132, 26, [(46, "active" if part else kind, "") for part in used])
        drawing.text(x + 14, 182, "whole resources", "start")
        parts = (
            [("active", 110), ("cache", 74)] if number == 1 else [("cache", 50), ("active", 134)]
        )
        drawing.bar(x + 14, 190, 26, [(width, kind, "") for kind, width in parts])
        drawing.lines(
            x + 14,
            244,
            "headroom: may be taken",
            "without asking anybody",
            "most cached: may be kept",
        )
    drawing.box(
        16,
        356,
        448,
        "Shared by all",
        "one word: what is active, and all headroom. Its most is the peak",
        "one lock: footprint, limits, counters",
        height=68,
    )
    drawing.arrow((90, 316), (90, 356))
    drawing.arrow((390, 316), (390, 356))
    drawing.text(100, 340, "claims more", "start")
    drawing.text(380, 340, "or gives some back", "end")
    drawing.bar(16, 446, 24, [(24, "active", "")])
    drawing.text(46, 463, "in use", "start")
    drawing.bar(116, 446, 24, [(24, "slack", "")])
    drawing.text(146, 463, "slack: free, in a slab in use", "start")
    drawing.bar(352, 446, 24, [(24, "cache", "")])
    drawing.text(382, 463, "idle", "start")
    return drawing


def footprint():
    drawing = Drawing(
        300,
        "What the footprint is made of",
        """One bar, the footprint, in four parts: active, slack, cache and pending. It ends before
        the memory limit. A second bar below it, what is resident, covers only what was touched.""",
    )
    drawing.text(20, 34, "footprint", "start", strong=True)
    drawing.bar(
        20,
        46,
        40,
        [
            (170, "active", "active"),
            (60, "slack", "slack"),
            (90, "cache", "cache"),
            (64, "pending", "pending"),
        ],
    )
    drawing.limit(436, 22, 196)
    drawing.text(428, 34, "memory limit", "end")
    drawing.text(
        20,
        122,
        "of it resident: touched, so the system had to find pages for it",
        "start",
        strong=False,
    )
    drawing.bar(
        20,
        134,
        26,
        [
            (104, "plain", ""),
            (36, "open", ""),
            (90, "plain", ""),
            (70, "plain", ""),
            (84, "open", ""),
        ],
    )
    drawing.text(20, 182, "filled: in RAM; open: promised only", "start")
    drawing.lines(
        20, 222,
        "active: blocks in callers' hands",
        "slack: free pieces of slabs of which others are in use",
        "cache: idle, kept for the next request",
        "pending: being asked of the system, or being returned",
    )  # fmt: skip
    return drawing


def growth():
    drawing = Drawing(
        430,
        "Judge, reserve, confirm",
        """The footprint at four instants under a strict limit of 200 MiB, while 64 MiB are asked
        for with 100 in use and four idle blocks of 20: 180, then 184 with 64 pending, then 184 with
        164 active. A request for 104 changes nothing: it is refused.""",
    )
    x, scale = 20, 2
    before = [(100, "active", "100"), *[(20, "cache", "20")] * 4]
    reserved = [(100, "active", "100"), (20, "cache", "20"), (64, "pending", "64")]
    steps = [
        ("before: 100 MiB active, four idle blocks of 20", before),
        ("reserved: three go back, 64 are pending; together 184", reserved),
        ("confirmed: the pages are there", [(164, "active", "164"), (20, "cache", "20")]),
        ("or else, asked for 104: refused, nothing has changed", before),
    ]
    for number, (text, parts) in enumerate(steps):
        y = 60 + 88 * number
        drawing.text(x, y - 10, text, "start")
        drawing.bar(x, y, 34, [(width * scale, kind, label) for width, kind, label in parts])
    drawing.shape(x, 366, 104 * scale, 12, "refused")
    drawing.text(x + 104 * scale + 10, 377, "104", "start")
    drawing.limit(x + 200 * scale, 40, 384)
    drawing.text(x + 200 * scale, 32, "limit 200 MiB", "end", strong=True)
    drawing.lines(
        x, 408, "At no instant is the footprint above the limit, nor below what is mapped."
    )
    return drawing


def policies():
    drawing = Drawing(
        498,
        "The three policies at the limit",
        """The footprint over time. Strict: a request that would pass the limit is refused and the
        line stays below. Guideline: the line passes the limit, which is counted. Wait: the line
        stays until another thread frees enough, then the request is served.""",
    )
    # The course in each, below the base: at first it is the same in all.
    begins = "M20 {0} H120 V{1} H{2}"
    rows = [
        ("strict: MemoryError, with the numbers", 440, ""),
        ("guideline: an overrun is counted", 230, " V{3} H440"),
        ("wait: until others have freed enough", 330, " V{4} H350 V{5} H440"),
    ]
    for number, (title, until, ends) in enumerate(rows):
        top = 26 + 158 * number
        base = top + 18
        drawing.text(20, top + 6, title, "start", strong=True)
        drawing.shape(20, base, 440, 118, "plain")
        drawing.put(f'<path class="limit" d="M20 {base + 38} H460"/>')
        heights = [base + y for y in (16, 100, 46)]
        course = (begins + ends).format(base + 110, base + 70, until, *heights)
        drawing.put(f'<path class="line" d="{course}"/>')
        drawing.text(28, base + 32, "limit", "start")
        if number == 0:
            drawing.put(f'<path class="line refusal" d="M222 {base + 50} l16 16 m0 -16 l-16 16"/>')
            drawing.text(246, base + 62, "refused", "start")
        if number == 1:
            drawing.text(222, base + 30, "asked", "end")
        if number == 2:
            drawing.text(222, base + 60, "asked, waits", "start")
            drawing.text(322, base + 98, "another frees", "end")
    return drawing


def pool():
    drawing = Drawing(
        452,
        "What a pool of processes shares",
        """A bar is the pool's limit. Of it four processes hold a part each; of what one holds a
        part is used and the rest loose. What nobody holds is free. To hold more a process writes a
        draft, adds up all slots and makes it good if the sum is within the limit.""",
    )
    drawing.text(20, 34, "the pool's limit: one file that all of them map", "start", strong=True)
    parts = [
        (96, "active", "used"), (28, "cache", ""), (70, "active", "used"), (28, "cache", ""),
        (50, "active", "used"), (28, "cache", ""), (56, "active", "used"), (84, "plain", "free"),
    ]  # fmt: skip
    drawing.bar(20, 46, 40, parts)
    for x, width, number in ((20, 124, 1), (144, 98, 2), (242, 78, 3), (320, 56, 4)):
        drawing.put(f'<path class="line" d="M{x + 4} 100 v8 h{width - 8} v-8"/>')
        drawing.text(x + width / 2, 128, f"slot {number}")
    drawing.bar(20, 144, 20, [(24, "cache", "")])
    drawing.text(52, 159, "loose: held, not used; others may take it from the slot", "start")
    drawing.text(
        20,
        204,
        "to hold more, without a lock and without waiting for anybody",
        "start",
        strong=True,
    )
    for y, lines, kind in (
        (218, ("1. draft", "write what it wants into its own slot, marked"), "pending"),
        (290, ("2. sum", "add up what all slots hold, drafts with them"), "plain"),
        (362, ("3. make it good, or take it back", "if the sum is within the limit"), "active"),
    ):
        drawing.box(20, y, 440, *lines, kind=kind)
    drawing.arrow((240, 268), (240, 290))
    drawing.arrow((240, 340), (240, 362))
    drawing.lines(
        20, 436, "Killed between any two steps, it leaves what it held, for others to bury."
    )
    return drawing


def idle():
    drawing = Drawing(
        250,
        "How far idle memory may bring the footprint",
        """A bar of the most that was active, 64 MiB, then a quarter of it, 16 MiB, then 16 MiB for
        one heap. Growth by 1 MiB and more begins with a bar of 64 MiB and 4 MiB for the heap.""",
    )
    scale = 4
    most, half = (64, "active", "64 MiB"), (2, "cache", "")
    outer = (
        (64, "active", "64 MiB: the most that was active"),
        (16, "cache", "1/4"),
        (16, "cache", "16"),
    )
    rows = (
        ("the outer bound: five quarters, and 16 MiB a heap", outer),
        ("where growth by 1 MiB and more begins: 4 MiB a heap", (most, (4, "cache", ""))),
        ("Python's objects, malloc: 1/32, and 2 MiB a heap", (most, half, half)),
    )
    for number, (text, parts) in enumerate(rows):
        y = 44 + 72 * number
        drawing.text(20, y - 10, text, "start")
        drawing.bar(20, y, 34, [(width * scale, kind, label) for width, kind, label in parts])
    drawing.limit(20 + 96 * scale, 38, 236)
    return drawing


DRAWINGS = (malloc, free, heaps, idle, footprint, growth, policies, pool)


def main():
    for draw in DRAWINGS:
        (Path(__file__).parent / f"{draw.__name__}.svg").write_text(draw().svg())


if __name__ == "__main__":
    main()

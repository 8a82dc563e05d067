"""When growth has the system's room read."""

import pytest

from support.cgroup import UNIFIED, needs_namespace, recorded
from support.peers import Holder
from support.process import run

pytestmark = [pytest.mark.host, needs_namespace]

# Of each reading, `reads` are counted by the kernel: some for every file.
COMES_AND_GOES = """
    memlimits.set_cache_limit(0)

    def reads():
        with open("/proc/self/io") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("syscr"))

    def come_and_go(times, n=32 * MIB):
        before, start = reads(), time.monotonic()
        for _ in range(times):
            memlimits.allocate(n).release()
        return reads() - before, time.monotonic() - start

    a_reading, _ = come_and_go(1)
    counted, seconds = come_and_go(500)
"""


def machine(tmp_path, available, total=409600000):
    meminfo = f"MemTotal: {total} kB\nMemAvailable: {available >> 10} kB"
    return recorded(tmp_path, "0::/", UNIFIED.format(top="/"), {}, meminfo=meminfo)


def test_blocks_that_come_and_go_are_read_for_once_in_a_while(tmp_path):
    check = "assert counted <= a_reading * (2 + seconds / 0.01)"
    run(f"{COMES_AND_GOES}\n    {check}", words=machine(tmp_path, 256 << 30))


def test_what_would_take_more_than_a_quarter_of_the_room_is_read_for_each_time(tmp_path):
    run(f"{COMES_AND_GOES}\n    assert counted >= 500", words=machine(tmp_path, 128 << 20))


@pytest.mark.parametrize(("n", "seldom"), [(24, True), (48, False)])
def test_beside_another_program_that_holds_for_what_was_left_to_each(tmp_path, n, seldom):
    """Here a 64th of 4 GiB for both, in equal parts; however much is spoken for at first sight."""
    words = machine(tmp_path, 3 << 30, total=4 << 20)
    check = f"""
    held = memlimits.allocate(100 * MIB)
    a_reading, _ = come_and_go(1, {n} * MIB)
    counted, seconds = come_and_go(500, {n} * MIB)
    if {seldom}:
        assert counted <= a_reading * (2 + seconds / 0.01), (counted, a_reading)
    else:
        assert counted >= 500, counted
    """
    with Holder(words, 1, reserved=8192):
        run(COMES_AND_GOES + check, words=words)

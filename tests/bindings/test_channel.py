"""What recorded processes tell whoever records them, seen from both ends."""

import os

import pytest

from memlimits import _modules
from support.process import run

pytestmark = [pytest.mark.host, pytest.mark.inside]

BOTH = """
    from memlimits import _modules
    channels = _modules.for_channel()
    channels.create({path!r})
    assert channels.join({path!r}) and not channels.join({path!r})
    channel = channels.Channel({path!r})
    memlimits.set_holder_sampling(1 << 18)

    def hold(n):
        return memlimits.allocate(n * MIB)

    def told():
        return [(kind, pid, data) for kind, at, pid, data in channel.take()]
"""


@pytest.fixture
def channels():
    return _modules.for_channel()


def both(tmp_path, script):
    run(BOTH.format(path=str(tmp_path / "events")) + script)


def test_who_asks_hears_of_holders_at_the_next_growth(tmp_path):
    both(
        tmp_path,
        """
    blocks = [hold(5), hold(3), memlimits.allocate(2 * MIB)]
    known = memlimits.holders()
    assert told() == []
    channel.ask()
    assert told() == []
    more = hold(1)
    [(kind, pid, data)] = told()
    assert (kind, pid) == ("holders", os.getpid())
    found = channels.holders(data)
    assert sum(one["nbytes"] for one in found) == 10 * MIB
    assert {tuple(one["stack"]) for one in found} >= {one.stack for one in known}
    [one] = [one for one in found if one["nbytes"] == 5 * MIB]
    assert (one["function"], one["blocks"]) == ("hold", 1)
    assert one["stack"][-1] == (one["file"], one["line"], "hold")
    hold(1)
    assert told() == []
        """,
    )


def test_names_are_told_as_they_are(tmp_path):
    both(
        tmp_path,
        """
    source = "def hold_it(): return memlimits.allocate(4 * MIB)"
    names = ["a <script> of \\"quotes\\"\\n", "\\udcff\\ud800", "x" * 900, "\\u00e9\\U0001f600"]
    blocks = []
    for name in names:
        space = dict(globals())
        exec(compile(source, name, "exec"), space)
        blocks.append(space["hold_it"]())
    channel.ask()
    hold(1)
    [(_, _, data)] = told()
    assert {one["file"] for one in channels.holders(data)} == set(names)
        """,
    )


def test_the_line_is_told_however_deep_libraries_go_below_it(tmp_path):
    both(
        tmp_path,
        """
    deep = "def dig(n, get): return dig(n - 1, get) if n else get(4 << 20)"
    space = {}
    exec(compile(deep, os.path.dirname(os.__file__) + "/dug.py", "exec"), space)
    def hold_below():
        return space["dig"](60, memlimits.allocate)
    block = hold_below()
    channel.ask()
    hold(1)
    [(_, _, data)] = told()
    [one] = channels.holders(data)
    assert (one["function"], one["file"]) == ("hold_below", "<string>")
    assert [frame[2] for frame in one["stack"]] == ["dig"] * 24
        """,
    )


def test_a_refusal_is_told_with_who_held_most(tmp_path):
    both(
        tmp_path,
        """
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(20 * MIB)
    block = hold(15)
    assert refused_by(40 * MIB) == "limit"
    error = memlimits.last_refusal()
    [(kind, pid, data)] = told()
    assert (kind, pid) == ("refusal", os.getpid())
    facts = channels.refusal(data)
    for name in ("requested", "limit", "footprint", "active", "cache", "slack", "blocked_by"):
        assert facts[name] == getattr(error, name), name
    [holder], [known] = facts["holders"], error.holders
    assert (holder["nbytes"], tuple(holder["stack"])) == (known.nbytes, known.stack)
        """,
    )


def test_what_nobody_takes_out_is_lost_and_counted(tmp_path):
    both(
        tmp_path,
        """
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(20 * MIB)
    for _ in range(40):
        assert refused_by(40 * MIB) == "limit"
    assert len(told()) == 32 and channel.lost() == 8
    assert refused_by(40 * MIB) == "limit"
    assert len(told()) == 1
        """,
    )


def test_a_long_line_comes_whole_and_in_its_order(tmp_path):
    both(
        tmp_path,
        """
    lines = [str(n) * 90_000 for n in range(6)] + ["", "\\u00e9" * 32728]
    got, parts = [], {}
    def put():
        for line in lines:
            assert channels.put(line)
    thread = threading.Thread(target=put)
    thread.start()
    while len(got) < len(lines):
        for kind, at, pid, data in channel.take():
            parts.setdefault(pid, []).append(data)
            if kind == "line":
                got.append(b"".join(parts.pop(pid)).decode())
    thread.join()
    assert got == lines and parts == {}
        """,
    )


def test_a_line_that_nobody_takes_is_given_up(tmp_path):
    both(
        tmp_path,
        """
    assert not channels.put("x" * 2_000_000)
    assert len(told()) == 32
        """,
    )


def test_a_forked_child_is_recorded_by_itself(tmp_path):
    both(
        tmp_path,
        """
    block = hold(5)
    channel.ask()
    pid = os.fork()
    if pid == 0:
        more = hold(2)
        channel.ask()
        last = hold(3)
        os._exit(0)
    os.waitpid(pid, 0)
    members = {member: left for member, _, _, left in channel.members()}
    assert members == {os.getpid(): False, pid: False}
    found = [channels.holders(data) for kind, teller, data in told() if teller == pid]
    assert [sum(one["nbytes"] for one in each) for each in found] == [5 * MIB, 7 * MIB]
    channel.forget(pid)
    assert [member for member, *_ in channel.members()] == [os.getpid()]
        """,
    )


def test_who_ends_in_order_says_so(tmp_path, channels):
    path = str(tmp_path / "events")
    channels.create(path)
    channel = channels.Channel(path)
    joins = f"from memlimits import _modules\n_modules.for_channel().join({path!r})\n"
    run(joins + "memlimits.allocate(MIB)")
    [(pid, started, over, left)] = channel.members()
    assert started > 0
    assert (over, left) == (True, True)
    channel.forget(pid)
    run(joins + "os.kill(os.getpid(), signal.SIGKILL)", code=-9)
    [(pid, _, over, left)] = channel.members()
    assert (over, left) == (False, False)
    channel.forget(pid)
    closes = "from memlimits import memory\nmemory.closing_stats(os.getpid())\n"
    run(joins + closes + "os.kill(os.getpid(), signal.SIGKILL)", code=-9)
    [(_, _, over, left)] = channel.members()
    assert (over, left) == (True, False)


@pytest.mark.parametrize(
    ("offset", "data", "why"),
    [
        (0, b"another", "it is no file that processes are recorded by"),
        (8, b"\xff", "it was made by another version of memlimits"),
        (16, b"\xff", "it was made by another version of memlimits"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, channels, offset, data, why):
    path = tmp_path / "events"
    channels.create(str(path))
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)
    for step in (channels.join, channels.Channel):
        with pytest.raises(OSError, match=why):
            step(str(path))


def test_a_file_of_another_length_or_none_is_refused(tmp_path, channels):
    path = tmp_path / "events"
    with pytest.raises(OSError, match="No such file"):
        channels.Channel(str(path))
    channels.create(str(path))
    with pytest.raises(OSError, match="File exists"):
        channels.create(str(path))
    os.truncate(path, 100)
    with pytest.raises(OSError, match="it has another length"):
        channels.join(str(path))


def test_lengths_that_others_wrote_are_not_believed(tmp_path, channels):
    path = tmp_path / "events"
    channels.create(str(path))
    channel = channels.Channel(str(path))
    slot = path.stat().st_size - 32 * (32728 + 40)
    with open(path, "r+b") as file:
        file.seek(slot)
        for word in (1, 0, 1, 1, 1 << 40):
            file.write(word.to_bytes(8, "little"))
    assert channel.take() == []
    with open(path, "r+b") as file:
        file.seek(slot)
        for word in (1, 0, 1, 1, 40):
            file.write(word.to_bytes(8, "little"))
    [(kind, _, _, data)] = channel.take()
    assert (kind, len(data)) == ("holders", 40)
    with pytest.raises((ValueError, IndexError)):
        channels.holders(data)

"""The files of pools: what is checked of them, who may use them, and what is refused."""

import os
import random
import re
import stat

import pytest

import memlimits
from support.members import MIB, members
from support.patience import until
from support.places import let_everybody_in
from support.process import run

pytestmark = [pytest.mark.host, pytest.mark.inside]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIMITS_POOLS", str(tmp_path))
    return tmp_path


@pytest.fixture
def file(folder):
    memlimits.pools.create("p", 64 * MIB)
    return folder / "p.pool"


def spoil(file, offset, data):
    with open(file, "r+b") as opened:
        opened.seek(offset)
        opened.write(data)


@pytest.mark.parametrize(
    ("offset", "data", "why"),
    [
        (0, b"another", "it is no pool of memlimits"),
        (8, b"\xff", "it was made by another version of memlimits"),
        (16, b"\xff\xff", "it is damaged"),
        (40, bytes(8), "it is damaged"),
        (40, b"\x03", "it is damaged"),
    ],
)
def test_a_damaged_file_is_refused(file, offset, data, why):
    spoil(file, offset, data)
    for step in (memlimits.pools.get, memlimits.join):
        with pytest.raises(OSError, match=why):
            step("p")
    memlimits.pools.remove("p")


@pytest.mark.parametrize("change", [-1, 1, -4096])
def test_a_file_of_another_length_is_refused(file, change):
    os.truncate(file, file.stat().st_size + change)
    with pytest.raises(OSError, match=r"p\.pool: it has another length"):
        memlimits.join("p")


def test_what_is_no_file_is_refused(folder, file):
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(OSError, match=re.escape(str(file))):
        memlimits.join("p")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(OSError, match="it is no ordinary file"):
        memlimits.join("p")


def mode(file):
    return stat.S_IMODE(file.stat().st_mode)


def test_nobody_else_may_read_it(folder):
    memlimits.pools.create("mine", MIB)
    assert mode(folder / "mine.pool") == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's pool is for everybody")
def test_everybody_may_use_it_where_that_is_said(folder):
    memlimits.pools.create("ours", MIB, everybody=True)
    assert mode(folder / "ours.pool") == 0o666


def test_a_pool_for_everybody_is_roots():
    run("""
        create = memlimits.pools.create  # Python's modules may lie where only root can read
        as_nobody()
        try:
            create("ours", MIB, everybody=True)
        except ValueError as error:
            assert str(error).startswith("a pool for everybody is root's"), error
        else:
            raise AssertionError
    """)


@pytest.mark.skipif(os.getuid() != 0, reason="it takes root to be two users")
def test_two_users(tmp_path):
    """Another user's is refused; root's serves all, if root made it for all."""
    let_everybody_in(tmp_path)
    run(f"""
        os.environ["MEMLIMITS_POOLS"] = folder = {str(tmp_path)!r}
        os.chmod(folder, 0o777)
        memlimits.pools.create("mine", 64 * MIB)
        memlimits.pools.create("all", 64 * MIB, everybody=True)
        memlimits.pools.create("given", 64 * MIB, everybody=True)
        os.chown(folder + "/given.pool", 1234, 1234)
        as_nobody()
        for name, why in (("mine", "Permission denied"), ("given", "belongs to another user")):
            try:
                memlimits.join(name)
            except OSError as error:
                assert why in str(error), error
            else:
                raise AssertionError(name)
        with memlimits.join("all"):
            block = memlimits.allocate(MIB)
            (member,) = memlimits.pools.get("all")["members"]
            assert member["active"] == MIB
    """)


def test_whatever_stands_in_the_words_no_member_is_harmed(file, folder):
    """It may be refused, and go on; what it holds is its own."""
    chance = random.Random(7)
    size = file.stat().st_size
    with members(folder, 2) as processes:
        for member in processes:
            member.join()
            assert member.ask("take(MIB)") == "ok"
        for step in range(150):
            # What is behind the head's first words, which are not read again.
            offset = chance.randrange(200, size if step % 2 else 8192)
            data = chance.choice([b"\xff" * 8, bytes(8), chance.randbytes(64)])
            spoil(file, offset, data[: size - offset])
            for member in processes:
                assert member.ask("take(MIB)") in ("ok", "pool", "limit")
                assert member.ask("len(blocks) > 8 and blocks.clear()") in (None, False)
        for member in processes:
            assert member.ask("memlimits.pools.Membership('p').leave()") is None
            assert member.ask("blocks.clear() or memlimits.clear_cache()") is None
            assert member.ask("take(70 * MIB)") == "ok"
            assert member.ask("memory.stats().footprint") >= 70 * MIB


# Where words of its file are: of the head, and of the first member.
TICKETS, REFUSALS, BELL = 192, 232, 4096 + 104


@pytest.mark.parametrize("end", [1 << 32, 1 << 64])
def test_counts_go_on_past_the_end_of_their_numbers(file, folder, end):
    """Of 32 bits, and from the last of 64 to 0."""
    spoil(file, REFUSALS, (end - 1).to_bytes(8, "little"))
    with members(folder, 1) as (member,):
        member.join()
        assert member.ask("take(70 * MIB)") != "ok"
        assert member.ask("take(MIB)") == "ok"
        assert memlimits.pools.get("p")["refusals"] == end % (1 << 64)


def test_those_who_wait_are_served_when_the_numbers_begin_again(file, folder):
    spoil(file, TICKETS, b"\xff" * 8)
    with members(folder, 2) as (holder, other):
        holder.join()
        other.join(policy="wait", timeout=60)
        assert holder.ask("take(60 * MIB)") == "ok"
        other.tell("take(40 * MIB)")
        until(lambda: memlimits.pools.get("p")["waits"] == 1)
        assert max(m["waiting_for"] for m in memlimits.pools.get("p")["members"]) == 40 * MIB
        holder.ask("blocks.clear()")
        assert other.hear() == "ok"


def test_who_was_asked_4_billion_times_answers_the_next_time(file, folder):
    with members(folder, 2) as (one, other):
        one.join()
        other.join()
        one.ask("take(40 * MIB)")
        one.ask("blocks.clear()")
        spoil(file, BELL, b"\xff" * 4)
        assert other.ask("take(60 * MIB)") == "ok"
        assert memlimits.pools.get("p")["moved"] == 40 * MIB


def test_there_may_be_no_place(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEMLIMITS_POOLS", str(tmp_path / "file" / "below"))
    with pytest.raises(OSError, match=r"there is no place .*file/below: .*Set MEMLIMITS_POOLS"):
        memlimits.join("p", limit=MIB)


def test_where_shared_memory_is_missing_another_place_is_found(monkeypatch, tmp_path):
    monkeypatch.delenv("MEMLIMITS_POOLS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid())
    folders = [*memlimits.pools._folders()]
    assert folders[:2] == [f"/dev/shm/memlimits-{os.geteuid()}", f"{tmp_path}/memlimits"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_folder_that_is_closed_to_a_user_has_no_pools_for_him():
    run("""
        import shutil, tempfile
        from memlimits import pools
        os.environ.pop("MEMLIMITS_POOLS", None)
        folder = tempfile.mkdtemp(dir="/tmp")
        pools._folders = pools._all_folders = lambda: [folder]
        open(f"{folder}/a.pool", "w").close()
        assert pools.names() == ["a"]
        os.seteuid(65534)
        assert os.path.isdir(folder)
        assert pools.names() == pools.trees() == []
        os.seteuid(0)
        shutil.rmtree(folder)
        """)


def test_a_folder_that_others_can_write_is_not_used(monkeypatch, tmp_path):
    """They could put their own file in the place of ours."""
    monkeypatch.delenv("MEMLIMITS_POOLS", raising=False)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)
    monkeypatch.setattr(memlimits.pools, "_folders", lambda: [str(theirs)])
    with pytest.raises(OSError, match="others can write there"):
        memlimits.pools.create("p", MIB)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"limit": -1}, ValueError, "limit must be from"),
        (
            {"limit": True},
            TypeError,
            "limit must be an integer, in bytes, or a size such as '2GiB', not True",
        ),
        ({"limit": 1.5}, TypeError, "limit must be an integer, in bytes"),
        ({"limit": 1 << 62}, ValueError, "limit must be from"),
        ({"limit": MIB, "minimum": -1}, ValueError, "minimum must be from 0"),
        ({"limit": "x"}, ValueError, "limit: invalid size 'x': write it as"),
        ({"limit": MIB, "minimum": []}, TypeError, "minimum must be an integer, in bytes"),
        ({"limit": MIB, "maximum": "1"}, ValueError, "maximum: 1 bytes, or MiB?"),
        (
            {"limit": MIB, "minimum": 2, "maximum": 1},
            ValueError,
            "maximum 1 B is below minimum 2 B",
        ),
        ({"limit": MIB, "priority": None}, TypeError, "priority must be an integer"),
    ],
)
def test_bad_arguments(folder, arguments, error, text):
    with pytest.raises(error, match=re.escape(text)):
        memlimits.join("p", **arguments)
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("name", "error"),
    [("", ValueError), ("a/b", ValueError), ("..", ValueError), ("a" * 64, ValueError),
     ("a\0", ValueError), ("a\n", ValueError), ("ä", ValueError), (b"a", TypeError),
     (None, TypeError)],
)  # fmt: skip
def test_bad_names(folder, name, error):
    for step in (memlimits.join, memlimits.pools.get, memlimits.pools.remove):
        with pytest.raises(error, match=r"pool's name|pool name"):
            step(name)
    with pytest.raises(error):
        memlimits.pools.create(name, MIB)
    assert os.listdir(folder) == []


def test_a_process_is_in_one_pool(folder, file):
    with members(folder, 1) as (one,):
        one.join()
        answer = one.ask("memlimits.join('p')")
        assert answer.startswith("RuntimeError: this process is a member of a pool already")


def test_one_with_another_limit_is_refused_with_both(folder, file):
    says = "limit of 64 MiB (67,108,864 bytes), not 1 MiB (1,048,576 bytes): "
    for limit in (MIB, "1MiB"):
        with pytest.raises(ValueError, match=re.escape(says)):
            memlimits.join("p", limit=limit)
    with memlimits.join("p", limit="64MiB", minimum="1 MiB", maximum="50MiB"):
        [member] = memlimits.pools.get("p")["members"]
        assert (member["minimum"], member["maximum"]) == (MIB, 50 * MIB)
    assert memlimits.pools.set_limit("p", "32MiB") == 64 * MIB
    assert memlimits.pools.get("p")["limit"] == 32 * MIB


def test_a_minimum_that_does_not_fit_is_refused_with_the_numbers(folder, file):
    with members(folder, 1) as (one,):
        one.join(minimum=40 * MIB)
        with pytest.raises(ValueError, match=r"limit 64 MiB .*, others 40 MiB .*, minimum 30 MiB "):
            memlimits.join("p", minimum=30 * MIB)


def test_whoever_reads_the_pool_that_it_is_in_stays_a_member(folder, file):
    """Closing a file gives up the locks of all that are open of it."""
    with members(folder, 2) as (one, other):
        one.join()
        other.join()
        one.ask("take(40 * MIB)")
        assert one.ask("len(memlimits.pools.get('p')['members'])") == 2
        assert other.ask("take(40 * MIB)") == "pool"
        assert len(memlimits.pools.get("p")["members"]) == 2


def test_a_pool_is_read_where_that_takes_memory_of_its_own(folder, file):
    """What Python makes for it grows like all else, which takes the lock for the pool."""
    run(f"""
        os.environ["MEMLIMITS_POOLS"] = {str(folder)!r}
        memlimits.set_memory_policy("strict")
        governing = memlimits.govern_python()
        memlimits.join("p")
        kept = [memlimits.pools.get("p") for _ in range(3000)]
        assert memlimits.pools.get("p")["members"][0]["used"] > MIB
    """)


def test_one_of_several_threads_joins_and_its_pool_stays(folder):
    run(f"""
        os.environ["MEMLIMITS_POOLS"] = {str(folder)!r}

        def join(name, barrier, ends):
            barrier.wait()
            try:
                ends.append(memlimits.join(name, limit=64 * MIB))
            except RuntimeError as error:
                assert "is a member of a pool already" in str(error), error

        for n in range(30):
            barrier, ends = threading.Barrier(3), []
            threads = [
                threading.Thread(target=join, args=(f"v{{n}}", barrier, ends)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(ends) == 1
            assert len(memlimits.pools.get(f"v{{n}}")["members"]) == 1
            ends[0].leave()
            memlimits.pools.remove(f"v{{n}}")
    """)


def test_a_pool_that_could_not_be_joined_is_not_left_behind(folder):
    with members(folder, 1) as (one,):
        one.ask("take(50 * MIB)")
        answer = one.ask("memlimits.join('q', limit=20 * MIB)")
        assert answer.startswith("ValueError: pool 'q' has no room")
    assert os.listdir(folder) == []


def test_a_child_of_one_that_closed_all_files_takes_its_place(folder, file):
    with members(folder, 1) as (one,):
        one.join()
        one.ask("os.closerange(3, 4096)")
        child = "print(repr([take(MIB), len(memlimits.pools.get('p')['members'])]), flush=True)"
        one.tell(f"[pid := os.fork(), pid or ({child}, os._exit(0)), os.waitpid(pid, 0)] and None")
        assert one.hear() == ["ok", 2]


def test_far_from_the_pools_limit_slabs_are_as_long_as_without_one(folder):
    """Of what nobody has taken little is drawn at a time: that is no sign that memory is short."""
    memlimits.pools.create("p", 2048 * MIB)
    run(f"""
        os.environ["MEMLIMITS_POOLS"] = {str(folder)!r}
        memlimits.set_memory_policy("strict")
        with memlimits.join("p"):
            memlimits.allocate(64 * MIB).release()
            memlimits.clear_cache()
            large = memlimits.allocate(64 * MIB)
            before = memlimits.stats()
            blocks = [memlimits.allocate(1024) for _ in range(8 * 1024)]
            assert memlimits.stats().slabs - before.slabs <= 8 * MIB // (64 * 1024) + 8
    """)


def test_what_is_not_touched_is_not_in_the_way_of_growth(folder):
    """It is part of the footprint, and not of what the pool counts."""
    memlimits.pools.create("p", 1024 * MIB)
    run(f"""
        os.environ["MEMLIMITS_POOLS"] = {str(folder)!r}
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_count("resident")
        with memlimits.join("p"):
            untouched = [memlimits.allocate(64 * MIB) for _ in range(8)]
            pieces = [memlimits.allocate(1024) for _ in range(1000)]
            del pieces[::2]     # other threads could have them, if they were to look
            with contextlib.suppress(memlimits.MemoryLimitError):
                memlimits.allocate(2048 * MIB)      # which has what is untouched looked at
            untouched.append(memlimits.allocate(MIB))
            assert memlimits.pools.get("p")["members"][0]["used"] < 128 * MIB
            taken = []
            thread = threading.Thread(
                target=lambda: taken.extend(memlimits.allocate(1024) for _ in range(1000)))
            thread.start()
            thread.join()
            assert memlimits.stats().steals == 0
    """)


def test_what_is_mapped_ahead_is_drawn_from_the_pool(folder):
    memlimits.pools.create("p", 2048 * MIB)
    run(f"""
        os.environ["MEMLIMITS_POOLS"] = {str(folder)!r}
        with memlimits.join("p"):
            blocks = [memlimits.allocate(64 * 1024) for _ in range(1000)]
            stats = memlimits.stats()
            assert stats.misses < 500
            (member,) = memlimits.pools.get("p")["members"]
            assert member["used"] == stats.footprint > 1000 * 64 * 1024
    """)

"""MLX that is not there, is too old, or has Metal: over a stand-in."""

import pytest

from support.process import run

pytestmark = [pytest.mark.host, pytest.mark.inside]

STAND_IN = """
        import types

        class Core(types.ModuleType):
            __version__ = "0.1"

            def __init__(self, has_metal):
                super().__init__("mlx.core")
                self.limits = {"memory": 2**40, "cache": 2**40, "wired": 0}
                self.held = [0, 0, 0]
                self.metal = types.SimpleNamespace(is_available=lambda: has_metal)
                for place, name in enumerate(("active", "cache", "peak")):
                    setattr(self, f"get_{name}_memory", lambda place=place: self.held[place])
                for name in self.limits:
                    setattr(self, f"set_{name}_limit", lambda n, name=name: self.set(name, n))

            def set(self, name, n):
                before, self.limits[name] = self.limits[name], n
                return before

            def clear_cache(self):
                self.held[1] = 0

        def put(core):
            sys.modules["mlx"] = types.ModuleType("mlx")
            sys.modules["mlx"].core = sys.modules["mlx.core"] = core
            return core
"""


def test_without_mlx_it_says_what_to_install():
    run("""
        sys.modules["mlx.core"] = None
        from memlimits.adapters import mlx
        for step in (mlx.apply, lambda: mlx.ticket(1)):
            try:
                step()
            except ImportError as error:
                assert "pip install 'mlx[cpu]'" in str(error) and error.name == "mlx", error
            else:
                raise AssertionError
        """)


def test_a_version_without_the_functions_is_told():
    run(
        STAND_IN
        + """
        from memlimits.adapters import mlx
        core = put(Core(False))
        del core.get_peak_memory
        try:
            mlx.apply()
        except RuntimeError as error:
            assert "this MLX, 0.1, has no mlx.core.get_peak_memory" in str(error), error
            assert "pip install --upgrade mlx" in str(error)
        else:
            raise AssertionError
        """
    )


def test_with_metal_what_may_be_wired_is_what_is_not_wired_here():
    run(
        STAND_IN
        + """
        from memlimits.adapters import mlx
        core = put(Core(True))
        memlimits.set_memory_limit(64 * MIB)
        with mlx.apply():
            assert core.limits == {"memory": 64 * MIB, "cache": 64 * MIB, "wired": 0}
        with memlimits.limits(wired=2 * MIB), mlx.apply():
            assert core.limits["wired"] == 2 * MIB
        assert core.limits == {"memory": 2**40, "cache": 2**40, "wired": 0}
        """
    )


def until_in_programs(condition):
    return f"""
        end = time.monotonic() + 20
        while not ({condition}):
            assert time.monotonic() < end
            time.sleep(0.001)
    """


def test_what_waits_for_its_computing_is_left_until_that_is_over():
    """On a CPU MLX would have all of Python's threads wait for it."""
    run(
        STAND_IN
        + """
        from memlimits.adapters import mlx
        core = put(Core(False))
        memlimits.set_memory_limit(64 * MIB)
        limits = mlx.apply()
        mlx.process_time = time.monotonic  # as it is where MLX computes
        time.sleep(0.2)
        core.held = [0, MIB, MIB]
        block = memlimits.allocate(32 * MIB)
        """
        + until_in_programs("core.limits['memory'] == 32 * MIB")
        + """
        with mlx.ticket(0):
            pass
        assert (core.limits["cache"], core.held[1]) == (64 * MIB, MIB)
        admissions = memlimits._modules.for_admissions()
        note = admissions.note
        admissions.note = lambda *numbers: (note(*numbers)[0], True)  # as if somebody waited
        time.sleep(0.2)
        assert core.held[1] == MIB
        mlx.process_time = lambda: 0.0
        """
        + until_in_programs("core.limits['cache'] == 32 * MIB and core.held[1] == 0")
        + """
        limits.close()
        """
    )


@pytest.mark.parametrize("step", ["set_memory_limit", "set_cache_limit"])
def test_where_mlx_fails_its_own_limits_hold_and_the_pool_is_left(step, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIMITS_POOLS", str(tmp_path))
    run(
        STAND_IN
        + f"""
        from memlimits.adapters import mlx
        memlimits.pools.create("p", 64 * MIB)
        core = put(Core(False))
        working, calls = getattr(core, {step!r}), []
        def failing(n):
            calls.append(n)
            if len(calls) == 2:
                raise OSError("it failed")
            return working(n)
        setattr(core, {step!r}, failing)
        try:
            mlx.apply("p")
        except OSError as error:
            assert str(error) == "it failed"
        else:
            raise AssertionError
        assert core.limits == {{"memory": 2**40, "cache": 2**40, "wired": 0}}, core.limits
        assert memlimits.pools.get("p")["members"] == []
        with mlx.apply("p"):
            assert core.limits["memory"] == 64 * MIB
        assert memlimits.pools.get("p")["members"] == []
        """
    )


def test_a_ticket_whose_limits_cannot_be_set_is_closed():
    run(
        STAND_IN
        + """
        from memlimits.adapters import mlx
        core = put(Core(False))
        memlimits.set_memory_limit(64 * MIB)
        limits = mlx.apply()
        working = core.set_memory_limit
        def failing(n):
            raise OSError("it failed")
        limits._pause()
        ticket = mlx.ticket(MIB)
        memlimits.set_memory_limit(32 * MIB)
        core.set_memory_limit = failing
        try:
            ticket.open()
        except OSError:
            assert memlimits.stats().mlx_tickets == 0
        else:
            raise AssertionError
        core.set_memory_limit = working
        limits.close()
        """
    )


def test_what_a_forked_child_has_from_its_parent_is_not_counted_there():
    run(
        STAND_IN
        + """
        from memlimits.adapters import mlx
        core = put(Core(False))
        core.held = [20 * MIB, 5 * MIB, 30 * MIB]
        with mlx.ticket(0):
            pass
        assert memlimits.stats().mlx_active == 20 * MIB
        pid = os.fork()
        if pid == 0:
            core.held = [22 * MIB, 5 * MIB, 30 * MIB]
            core.clear_cache = None  # which would wait for MLX's threads
            with mlx.ticket(0):
                pass
            stats = memlimits.stats()
            os._exit((stats.mlx_active, stats.mlx_cache) != (2 * MIB, 0))
        assert os.waitpid(pid, 0)[1] == 0
        """
    )


def test_its_thread_ends_with_a_fork_and_starts_with_the_next_ticket():
    """Python warns of a fork of several threads."""
    run(
        STAND_IN
        + """
        from memlimits.adapters import mlx
        core = put(Core(False))
        memlimits.set_memory_limit(64 * MIB)
        with mlx.apply() as limits:
            assert limits._thread is not None
            for _ in range(3):
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                assert limits._thread is None
                assert os.waitpid(pid, 0)[1] == 0
            with mlx.ticket(0):
                assert limits._thread is not None
            memlimits.set_memory_limit(32 * MIB)
        """
        + until_in_programs("core.limits['memory'] == 32 * MIB").replace("\n", "\n    ")
        + """
        assert limits._thread is None
        """
    )


def test_a_child_that_was_forked_before_mlx_computed_has_limits_of_its_own():
    run(
        STAND_IN
        + """
        from memlimits.adapters import mlx
        core = put(Core(False))
        memlimits.set_memory_limit(64 * MIB)
        with mlx.apply() as limits:
            pid = os.fork()
            if pid == 0:
                limits.close()
                memlimits.set_memory_limit(32 * MIB)
                with mlx.apply():
                    before = core.limits["memory"]
                os._exit(not (limits.closed and before == 32 * MIB))
            assert os.waitpid(pid, 0)[1] == 0
            assert not limits.closed
        """
    )

"""A budget that processes share: what all hold is never above it, whoever ends at whatever step."""

import pytest

from support import pool_drill


@pytest.fixture(scope="module")
def drill(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drill")
    pool_drill.build(folder)

    def run(file, **numbers):
        return pool_drill.drill(folder, file, **numbers)

    return run


@pytest.mark.parametrize("members", [2, 8])
def test_never_a_unit_over_whoever_draws_at_once(drill, tmp_path, members):
    done, refused, _kills, most = drill(
        tmp_path / "pool", members=members, limit=1000, operations=30_000, seed=members
    )
    assert done >= members * 30_000 - members * 64
    assert 0 < refused < done
    assert most > 900


def test_what_killed_members_held_is_there_again(drill, tmp_path):
    """The drill itself looks: with all stopped, at what each used; and at the end, that all is."""
    _done, _refused, kills, most = drill(tmp_path / "pool", members=6, limit=1000, kills=100)
    assert kills >= 100
    assert most > 500

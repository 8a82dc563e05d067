"""Sides timed under limits of memlimits'."""

from timing import Timed

import memlimits


def limited(side: Timed, limit: int, policy: str) -> Timed:
    """Return the side under a memory limit and a policy, as they were again after each sample."""

    def timed(number: int) -> float:
        previous = memlimits.set_memory_policy(policy), memlimits.set_memory_limit(limit)
        try:
            return side(number)
        finally:
            memlimits.set_memory_policy(previous[0])
            memlimits.set_memory_limit(previous[1])

    return timed


def uncached(side: Timed) -> Timed:
    """Return the side with a cache limit of 0."""

    def timed(number: int) -> float:
        memlimits.set_cache_limit(0)
        try:
            return side(number)
        finally:
            memlimits.set_cache_limit(None)

    return timed

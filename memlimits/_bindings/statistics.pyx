from libc.stdint cimport uint64_t

from memlimits._ledger.limits cimport BLOCKERS, NOTHING, Limits, limits_slack


cdef dict counters(const Snapshot *snapshot):
    cdef const Limits *limits = &snapshot.limits
    cdef uint64_t refusals = 0
    cdef int blocker
    for blocker in range(<int> BLOCKERS):
        refusals += limits.refusals[blocker]
    return {
        "footprint": limits.footprint,
        "pending": limits.pending,
        "active": limits.active,
        "cache": limits.cache,
        "slack": limits_slack(limits),
        "peak": limits.peak,
        "wired": limits.wired,
        "wired_asked": limits.wired_asked,
        "unwired_asked": limits.unwired_asked,
        "unwired_limit": limits.unwired_limit,
        "unwired_capacity": limits.unwired_capacity,
        "resources": limits.resources,
        "hits": limits.hits,
        "misses": limits.misses,
        "overruns": limits.overruns,
        "refusals": refusals,
        "wire_failures": limits.wire_failures,
        "reserved": limits.reserved,
        "waiting": limits.waiting,
        "waits": limits.waits,
        "waited_ns": limits.waited,
        "trims": limits.trims,
        "trimmed": limits.trimmed,
        "pressure_trims": limits.pressure_trims,
        "pressure_trimmed": limits.pressure_trimmed,
        "decays": limits.decays,
        "decayed": limits.decayed,
    }


cdef dict statistics(const Snapshot *snapshot, tuple causes):
    cdef const Limits *limits = &snapshot.limits
    cdef int blocker
    cdef dict all = counters(snapshot)
    for blocker in range(NOTHING + 1, <int> BLOCKERS):
        all[f"refusals_by_{causes[blocker]}"] = limits.refusals[blocker]
    all["purgeable"] = snapshot.purgeable
    all["largest_idle"] = snapshot.survey.largest_idle
    all["slabs"] = snapshot.survey.slabs
    all["steals"] = limits.steals
    all["evictions"] = limits.evictions
    all["evicted"] = limits.evicted
    all["wires"] = limits.wires
    all["commits"] = limits.commits
    all["wait_seconds"] = all.pop("waited_ns") / 1e9
    return all

"""The core as Python sees it: arguments checked, refusals raised, warnings given.

`allocator` is memory from one device within one set of limits; `buffer` one block, owned by a
Python object, with the quick path of `allocate`, for which `spares` keeps objects, and `dlpack`
what it exports; `budgets`, `contexts` and `limit_scopes` what is open where; `wiring` and
`system_info` the documented functions behind memory.py and system.py, `cuda` and `metal`
those behind cuda.py and metal.py; `pools` the files of pools, and who is in them; `admissions` what
MLX is let have; `pages` what other processes hold; `channel` both ends of what recorded processes
tell; `holders` say who holds memory, `notes` tell exceptions which refusal was behind them, and
`failures` are rules by which requests fail; `wait_hooks` what a thread does around a wait for the
interpreter's sake; `arguments` the checks and their messages. What they need of an object is
guarded by that object's lock (docs/design.md, "Locks"). Raising comes after unlocking.
"""

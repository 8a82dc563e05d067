"""What is kept resident: wired, within the wired limit and what the system allows.

`sets` are the device's residency sets and the queues that they are attached to; `plan` decides what
goes in and out when a resource is made or the limit is set; `pins` are what was asked to be wired
ahead of the rest. Where a GPU's driver is attached, what is wired is registered with that.

One operation runs at a time, under `Residency.mutex`, which comes before `Heaps.lock` and is held
across the device's commits, in which a GPU's driver is called. A resource that is not OUTSIDE
leaves through `residency_release` before it is destroyed.
"""

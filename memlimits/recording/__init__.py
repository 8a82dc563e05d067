"""Recordings: what a program's processes held, when, and who held it, in a file.

`Writer` writes one, `Reader` goes through its entries one by one, and `load` has as much of it in
memory as a picture can show. The format is described in docs/guides/recordings.md.

Inside: `entries` has the kinds of entries and what is in them, `thinning` says which of too many
can go, `writer`, with `compaction`, and `reader` are the two sides of the file, and `history` is
what `loading` makes of it; `stacking` adds up what processes hold together.
"""

from memlimits.recording.entries import VERSION, RecordingError
from memlimits.recording.history import History, Process
from memlimits.recording.loading import load
from memlimits.recording.reader import Reader
from memlimits.recording.writer import Writer

__all__ = ["VERSION", "History", "Process", "Reader", "RecordingError", "Writer", "load"]

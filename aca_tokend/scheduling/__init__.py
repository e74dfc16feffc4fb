"""When attempts run, and in which threads.

A token on schedule has a next attempt until it is dropped, never two at once. What hangs holds threads of its own pool
alone, and an attempt waits for it no longer than it has patience. A lost job is a bug, and ends the process.
"""

"""What is decided: pure functions and values. Nothing here opens a socket or a file, starts a thread, reads a clock."""

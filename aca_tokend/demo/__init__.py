"""The demo of one command, and the helper programs it shares with the tests: an ACAEngine look-alike and OpenBao."""

"""Answers that nobody sane would give, for everything that reads what somebody else wrote: `make fuzz`."""

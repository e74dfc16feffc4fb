"""One token's life: gather what is known, decide what is due, act, until nothing is due.

The flow goes down: `tokens` (all of a process) → `rotator` (the loop) → `decide` (the rules) → the actions `look`,
`grant`, `publish` and what they need. Only an attempt of its own changes what is known of a token; everything else
reaches it as a message. This room imports `core` alone: servers and places come to it behind the Protocols of
`core.ports`.
"""

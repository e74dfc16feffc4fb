"""A session with one Vault or OpenBao: log-in, our own token, requests to its nodes, KV secrets.

A token of ours that works is kept until another one works, and what it replaced is revoked. Answers are read by the
strict readers of `core/vault_answers.py`; what went wrong is an error of the caller's step, with its reason, in words
of ours. Requests go through hvac and `net`. Nothing here opens a connection, sleeps or tries again, but for one request
after a log-in that replaced a dead token.
"""

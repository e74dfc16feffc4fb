"""The token endpoint of one ACAEngine: a password grant or a verification, each sent once.

Requests go through httpx and `net`, and `core/grant.py` reads the answers. What went wrong is an error with a reason,
in words of ours: no text of the server is in it.
"""

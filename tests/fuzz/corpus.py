"""Inputs that something once did not stand, or that were tried by hand: each is tried again by every run."""

_HUGE = b"9" * 4300
_KEEP, _CLOSE, _EVERY = b"\0", b"\1", b"\4"  # as tests/fuzz/sockets.py reads the first byte
_OK = b"HTTP/1.1 200 x\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"

CORPUS: list[tuple[str, bytes]] = [
    # found: with one attempt more it has a digit too many to be written
    ("attempts", b'{"f":{"proven":true,"spent":%s,"reserved":true,"reason":"","changed_at":"2026-01-01"}}' % _HUGE),
    # found: an indent that no memory holds
    ("template", b"{{ [username]|tojson(indent=99999999999999) }}"),
    # each of these once ended the daemon
    ("grant", _KEEP + b"HTTP/1.1 302 x\r\nLocation: mailto:x\r\n\r\n"),
    ("verify", _KEEP + b"HTTP/1.1 302 x\r\nLocation: https://xn--/\r\n\r\n"),
    ("authority", _KEEP + b"HTTP/1.1 302 x\r\nLocation: :http://h:CANARY\r\n\r\n"),
    ("read_kv", _EVERY + _OK + _CHUNKED + b"\r\n-1\r\n{}\r\n0\r\n\r\n"),
    ("read_kv", _KEEP + b"HTTP/1.1 307 x\r\nLocation: http://a\x01b.x.localhost/v1/secret/data/aca/b\r\n\r\n"),
    ("log_in", _CLOSE + _OK + b'\r\n{"auth":{"client_token":"t","lease_duration":%s}}' % _HUGE),
    ("capabilities", _CLOSE + _OK + b'\r\n{"data":{"secret/data/aca/b":[[]]}}'),
    ("write_kv", _CLOSE + _OK + b'X-Vault-Index: \xe9 \x01\r\n\r\n{"data": {"version": 4}}'),
    ("write_kv", _KEEP + _OK + _CHUNKED + b"Content-Length: 5\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + _OK),
]

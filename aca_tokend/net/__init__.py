"""The network: HTTP/1.1 to one server, for ACAEngine and for Vault alike.

A request is over by its deadline, whatever name server, proxy and server do: one deadline covers look-up, connection,
TLS, writing and reading. Head and body are bounded before they are kept. Nothing is sent twice, and an error says
whether the server may have seen the request. No redirect is followed, no cookie kept, nothing taken from the
environment. What goes wrong is a `TransportError` with a reason, in words of ours: no text of the other side is in it.
"""

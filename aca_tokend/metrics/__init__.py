"""What is measured, and the page that tells it. docs/metrics.md has every series, and a test holds the two together.

`Metrics` is told of events and writes the page. The series of a token (`_tokens.py`) are written straight from views of
the rotations' state and from plain counters: they are there from the start, vanish with the token, and 10,000 tokens
make neither a slow page nor a large process. The rest (`_registry.py`) is kept by prometheus-client.
"""

from aca_tokend.metrics._metrics import UP_CODES, Metrics
from aca_tokend.metrics._tokens import SinkView, TokenView

__all__ = ["UP_CODES", "Metrics", "SinkView", "TokenView"]

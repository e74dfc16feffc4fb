"""`make bench-herds`: ten thousand tokens that start at once, and an endpoint that becomes too slow, simulated."""

from __future__ import annotations

import sys
from collections import Counter

from aca_tokend import log
from aca_tokend.simulation.driver import SimDriver
from tests.simulation.herds import HOUR, Spell, Unhurried, rounds

TOKENS, ROUNDS = 10_000, 4


def main() -> None:
    """Prints how wide each round is, and how many tokens expire in a quarter of an hour, by the order they go in."""
    print(f"{TOKENS:,} tokens of two hours that all start at once:")
    for number, moments in enumerate(rounds(TOKENS, 2 * HOUR, ROUNDS), start=1):
        span, busiest = max(moments) - min(moments), max(Counter(map(int, moments)).values())
        print(
            f"round {number}: {span:,.0f} s from the first to the last, "
            f"{len(moments) / span:.0f} grants a second, {busiest} in the busiest",
            flush=True,
        )
    log.configure("info", "json", sys.stdout)
    print("an endpoint at half of what 1,200 tokens need, for a quarter of an hour:")
    for order, driver in (("of their expiry", SimDriver), ("in which they fall due", Unhurried)):
        spell = Spell(driver)
        spell.run()
        print(f"{spell.expired} tokens expire in the order {order}", flush=True)


if __name__ == "__main__":
    main()

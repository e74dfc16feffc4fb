"""The console script, and `python -m aca_tokend`."""

from aca_tokend.process import harden, save_memory

# first: what is imported below takes a fifth of a second, in which others could read the memory
harden()
save_memory()

from aca_tokend.cli import main  # noqa: E402 -- hardened before

if __name__ == "__main__":
    main()

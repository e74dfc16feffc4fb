"""`python -m aca_tokend` is the console script."""

from aca_tokend.cli import main

if __name__ == "__main__":
    main()

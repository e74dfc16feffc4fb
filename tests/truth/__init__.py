"""Do the instruments tell what readers have? Real engine, metrics, log, status and rules, on a virtual clock."""

"""How fast the daemon is, beside others: ``make bench``. Nothing of it is installed."""

"""Files to run, one per thing; `ddarts init` writes the first of them where ddarts is installed."""

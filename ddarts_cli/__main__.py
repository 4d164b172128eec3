"""`python -m ddarts_cli` is `ddarts`."""

from ddarts_cli.main import main

main()

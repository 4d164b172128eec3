"""The `ddarts` command over all floors; each subcommand imports its floor when it runs."""

"""One module per subcommand; at import each needs click alone, and imports its floor when it runs."""

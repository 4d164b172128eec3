"""What a study's folder says of itself. No other room of the core uses it; all floors above do."""

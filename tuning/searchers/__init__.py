"""Who proposes trials, Optuna's journal of them, and which settings mattered."""

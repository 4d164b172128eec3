"""Who proposes trials, Optuna's journal of these trials, and which settings mattered."""

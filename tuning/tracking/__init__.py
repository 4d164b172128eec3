"""MLflow: the runs of a study and of its trials, the registry, and addresses with secrets."""

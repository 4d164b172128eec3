"""MLflow: the runs of a study and of its trials, the registry of models, and tracking URIs with secrets."""

"""Records: a run's journal, its way into MLflow, and finding it again."""

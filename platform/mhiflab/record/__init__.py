"""Records: write a run's journal, bring it into MLflow, and find the run again."""

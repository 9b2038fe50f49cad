"""Execution of what is missing: driver, Tune sweep, trial, worker, evaluation of test scenes."""

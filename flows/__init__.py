"""Prefect flows: they compose the steps of `tasks` and do nothing else."""

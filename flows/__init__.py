"""The orchestrations: each reads as a story of tasks, from top to bottom."""

"""The model: found, frozen, and its frozen towers run once."""

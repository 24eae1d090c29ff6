"""What a user may write: of channels, datasets, models and sources."""

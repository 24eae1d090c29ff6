"""Text: characters, titles, and what is safe to show where."""

"""What is written down and published."""

"""From videos to examples: splits, negatives and thumbnails."""

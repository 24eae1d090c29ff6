"""What a trained model is for: match titles, search pictures."""

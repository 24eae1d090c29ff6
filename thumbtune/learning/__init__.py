"""Training, evaluation, promotion, and the search for hyperparameters."""

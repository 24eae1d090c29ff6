"""The Hugging Face hub: what its refusals mean, and who may write there."""

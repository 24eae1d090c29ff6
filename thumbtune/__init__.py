"""The command line for who uses the models: see `thumbtune.cli`."""

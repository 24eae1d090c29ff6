"""Where everything is kept: a workspace on a disk or in a bucket."""

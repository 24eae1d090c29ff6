"""Where videos come from. Each source lists a channel's videos as a `Listing`."""

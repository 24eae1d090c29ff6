"""Where videos come from, and what is known of a channel."""

"""Tables of experiments: what they hold, what of them has run, and what came out."""

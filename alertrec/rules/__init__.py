"""Rules that fit: what users have on, what they are offered and advised, with which numbers and in which words."""

"""Release: what a round came to, how it is judged and decided, and the memo of it."""

"""A generated world: running text and tasks about it, of any amount, without a download."""

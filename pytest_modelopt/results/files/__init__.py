"""Files and folders as runs write them: whole or not at all, with sums, and held by locks."""

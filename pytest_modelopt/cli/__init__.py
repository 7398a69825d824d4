"""The commands of `pytest-modelopt`, one file each: its arguments, and what it does with them."""

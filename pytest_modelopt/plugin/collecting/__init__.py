"""Cases as pytest's items: how they are found, chosen on the command line, put in order and shared out."""

"""What is timed and when: pairs of blocks and of processes, whose turn it is, and the state of the machine."""

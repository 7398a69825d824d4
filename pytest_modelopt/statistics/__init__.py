"""Pure mathematics of verdicts, standard library only: the sign e-process, its intervals, paired proportions."""

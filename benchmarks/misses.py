"""How often a method calls a copy slower that is 15% slower, at a limit of 10%: the goal is 95% or more."""

from __future__ import annotations

from benchmarks.rounds import Question, main

if __name__ == "__main__":
    main(Question("misses", slowdown=0.15, limits=(0.10,), rounds=100, fail_means="called"))

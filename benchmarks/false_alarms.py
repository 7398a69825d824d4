"""How often a method calls a copy slower that is identical: 300 rounds, at limits of 5% and 10%."""

from __future__ import annotations

from benchmarks.rounds import Question, main

if __name__ == "__main__":
    main(Question("false_alarms", slowdown=0.0, limits=(0.05, 0.10), rounds=300, fail_means="false failures"))

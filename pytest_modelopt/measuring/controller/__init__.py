"""The pytest process's side of measuring: workers, launches, pairs, and what their answers come to."""

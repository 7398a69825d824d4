"""What the modules of a model are and do: sharing, hooks, sealed code, traces, and stand-ins while recipes run."""

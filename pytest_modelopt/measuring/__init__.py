"""What a variant costs: one worker process per variant, and a referee that lets two workers take turns.

`variant`, `worker` (its outer shell), `process`, `referee` and `carry` are imported by the pytest process and import no
torch. `loading`, `memory`, `process_memory`, `size`, `quality`, `metrics`, `latency` and `environment` run inside the
worker and do.
"""

"""What a variant costs: one worker process per variant, and paired timing that lets two workers take turns.

`controller` is the side of the process that asks and imports no torch; `worker` is the side that measures. What
both know stands here.
"""

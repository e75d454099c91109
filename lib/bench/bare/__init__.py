"""Bare client loops, one file per backend: the same library, statements, settings and delivery, and nothing around.

They share no code with the harness or its backends, so that neither can hide what it costs. Each file has `create` and
`destroy` for a queue, a `Producer` with `put`, and a `Consumer` with `take` (waits up to `WAIT_S`) and `settle`.
"""

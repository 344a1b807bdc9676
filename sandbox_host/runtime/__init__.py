"""Ties the rooms together: what lives, in which state, and who may ask it what.

`lifecycle` is the table of states; `process` one running plugin; `keeper` the one thread that looks
after all of them; `core` the host itself, blocking and thread-safe; `host` and `blocking` the two
faces of it that applications see. Hostile input arrives here as messages; `answers`, `interface`
and `causes` turn it into values, errors and verdicts, and are pure.
"""

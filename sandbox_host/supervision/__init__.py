"""Pure decisions about plugins that live on across processes: when to start again, in what order.

What comes in: no clock, no thread, no descriptor. Who acts on it is `sandbox_host.runtime`.
`lifecycle` is the table of a plugin's life, `restart` says when it is started again or put away,
`resolve` in which order plugins start, and `rollout` how a new version takes the place of an old
one; `machine` is what the tables share, `problems` what a dependency may lack, `picture` draws.
"""

"""The sandbox attacked on the operator's own machine: `sandbox-host doctor --attack`.

`collection` holds the attacks, which are plugin code. `arena` makes what is attacked and runs each
attack twice: without the sandbox, where it has to succeed (`control`), and inside a real plugin.
`report` judges what they met; `audit` does all of it.
"""

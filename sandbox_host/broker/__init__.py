"""Events between plugins and the application; all of them come in through `Broker.begin`.

`topics` says what a type may look like, who may publish it and what a pattern matches; `policies`
and `queues` bound what a slow subscriber may keep waiting, `handlers` the same of a plugin; `ring`
keeps the last events; `broker` hands events out. The host stamps source, time and number.

`store` writes down what durable subscriptions want, in the file of `store_file`; `durable` is what
waits for one of them; `publication` is what a publisher waits for.
"""

"""Events between plugins and the application; all of them come in through `Broker.publish`.

`topics` says what a type may look like and who may publish it; `queues` bounds what a slow
subscriber may keep waiting; `broker` hands events out. The host stamps source, time and number.
"""

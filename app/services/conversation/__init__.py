"""The durable way in: whoever says something, the gateway owns the turn until its answer has arrived.

An *input* is stored before anybody is told "accepted". Each thread has a *lane*, which starts one gateway-owned turn at
a time. What a turn said goes out as a *delivery*. Pure rules: states, decide, history, prompt, checks. I/O: agent
(the app-server), context (files), lane, outbox, approvals, usage. `service` is what rpc and routes call.
"""

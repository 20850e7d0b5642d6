"""Honest load tests over HTTP: every latency counts from the moment its request was *planned* to go out.

An outside client. It imports nothing of ours, so the server under test may be anybody's. The flow is
`session.run`: draw a plan, probe the server, send on time, measure; `result.build` makes the document of it.
"""

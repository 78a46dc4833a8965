"""The engine `native`: workers that answer the sidecar themselves, with no model server in between.

`engine` keeps the versions, `model` the workers of one, `worker_process` is one of them as its parent sees it, and
`worker` what runs inside it.
"""

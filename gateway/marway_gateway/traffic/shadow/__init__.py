"""Copies of a label's requests to a version whose answers nobody gets: sent after the answer, dropped first, compared.

Nobody waits for a copy: neither the caller, who has the answer by then, nor any other request. A copy takes no turn in
this gateway's queues, does not count as load of a pod, is sent once to a pod that has the version ready, and gives way
there to all others (`marway_sidecar.scheduler.spare`).
"""

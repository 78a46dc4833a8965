"""Looking at every model that has quality or drift declared: `python -m marway_observations.evaluate`.

One gateway among all runs it again and again, in a process of its own: what it finds becomes metrics, and events where
a bound is crossed. `results` and `gate` need nothing but the bare install.
"""

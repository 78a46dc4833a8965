"""How a rollout's candidate does by what feedback says, beside its base: `python -m marway_observations.rollouts`.

One gateway among all has it looked at again and again, in a process of its own, and the outcome is a document beside
the rollout's evidence in the registry's store, so that every gateway judges by the same counts. `results` needs nothing
but the bare install.
"""

"""Events leave from here: what histories tell is raised, and webhooks are sent what they want."""

"""The fork server: a process of one thread that imported torch once, and from which workers are forked."""

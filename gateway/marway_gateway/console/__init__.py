"""The console: the admin port's pages for people.

A page shows what the admin routes answer, made by the same functions; its buttons call those routes. So the console
reads and writes nothing in a way of its own, and what it does a program can do.
"""

"""What a worker does with a request: how rows become a handler's input, and what it returns becomes answers.

Workers run it, so does the process in which the archiver proves a handler, and the test kit. It runs beside handlers:
standard library only, and TorchServe, torch and numpy are looked at only where a handler has imported them.
"""

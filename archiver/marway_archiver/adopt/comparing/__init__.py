"""Asks an old model server and Marway the same requests, compares what they answer, and says what a client changes."""

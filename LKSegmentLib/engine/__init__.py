"""What is done with a request, the worker process around it, and the client that talks to that process.

Nothing is imported here: the client side must stay importable without torch, the worker side without Slicer.
"""

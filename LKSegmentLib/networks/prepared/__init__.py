"""The networks once more, for inference alone: the same results from fewer passes over memory.

Every class here is made from a module of `blocks` or a network, keeps folded copies of its weights, and takes and
returns maps of one sample (planes, rows, columns, channels). `networks.preparation` puts them in place.
"""

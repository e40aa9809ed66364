"""The command `lksegment`: one file for each command, listed in `commands.py`."""

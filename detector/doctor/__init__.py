"""Check the machine and the installation, and say how to mend what is wrong (`scripts/doctor.py`).

The checks run where nothing else does: this package imports only the standard library at its top, and what may fail is
tried in a process of its own (`probe.py`).
"""

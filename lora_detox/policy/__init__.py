"""What generates: one frozen backbone, its adapter and its value head.

The two model families differ only in `families.py`.
"""

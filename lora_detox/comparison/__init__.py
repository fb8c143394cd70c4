"""Finished runs beside each other: read from their folders, without weights and without PyTorch.

`candidates` reads what runs ship, `pairing` finds what can be compared, `compare` has the numbers,
`verdict` the sentences, `sweep` what the jobs of a multirun come to, `callback` is its end.
"""

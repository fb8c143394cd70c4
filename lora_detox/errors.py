"""What can go wrong, by the part of a run that a person has to look at.

Every message says what was wrong, what was got, what is wanted, and which key to change.
"""


class DetoxError(Exception):
    """Root of the errors that are reported as one clear message, without a traceback."""


class SettingsError(DetoxError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(DetoxError):
    """A data source that is missing, unreadable, empty or without the needed columns."""


class ScorerError(DetoxError):
    """A scorer that cannot be loaded, has unclear labels, the wrong sign, or failed on a text."""


class DivergenceError(DetoxError):
    """Training left the region where its numbers mean anything."""


class RolloutError(DetoxError):
    """A server of responses that cannot be reached, refuses, or answers what cannot be used."""


class PrunedError(DetoxError):
    """A trial of a study that earlier trials had left no prospects, so that it was ended."""


class DiskError(DetoxError):
    """A file that could not be written: a full, read-only or vanished disk, or an obstacle."""


class OutOfMemoryError(DetoxError):
    """Memory, of the machine or of its GPU, that ran out even with a single row at a time."""


class ExportError(DetoxError):
    """A result that could not be written or does not read back as it was written."""


class ProcessError(DetoxError):
    """Another of the processes that run one job has failed, or is gone."""

"""What can go wrong with a specialist, as one tree.

::

    SpecialistError
    ├── UnknownSpecialist         no bundled or installed specialist has this name
    ├── CardError                 a folder without a card, or a card that does not say what it must
    ├── UntrustedFolder           a folder whose code, or unlimited model, is not run before somebody trusts it
    ├── DefinitionError           a function that cannot be a specialist (or a tool): types missing, floor out of range
    ├── InvalidArguments          a call whose arguments do not fit the types
    ├── InvalidAnswer             a function returned what it did not promise: wrong type, NaN
    ├── ModelRejected             a model file that is missing, has another hash, or holds what is not loaded
    ├── ModelFailed               the model ran and failed, or gave NaN, or was given inputs of a wrong shape
    │   └── WorkerDied            the child process that ran the model died: killed, out of memory, out of time
    ├── Quarantined               an input that two child processes died of; it is not tried a third time
    ├── Overloaded                too many calls wait already; `wait` says how long a new one would, in seconds
    ├── DeadlinePassed            the time for an answer was over before there was one
    ├── CasesError                a file of labelled cases with a line that cannot be used, or none
    ├── CertificateError          a certificate.json that is none
    ├── CannotCertify             a calibration that finds no policy to certify; `needed`: the cases it would take
    ├── WatchError                what a watch on a certificate knows cannot be read or kept, or a label fits nothing
    ├── ScaffoldError             a new folder cannot be started: its name is no good, or it is there already
    ├── MissingRuntime            onnxruntime (or torch, or tokenizers) is not installed; the message names the extras
    └── CannotAnswer              raised by a specialist's own function: there is no answer, and why

Each message is one sentence that names the thing and the remedy.
"""

from __future__ import annotations

__all__ = [
    "CannotAnswer",
    "CannotCertify",
    "CardError",
    "CasesError",
    "CertificateError",
    "DeadlinePassed",
    "DefinitionError",
    "InvalidAnswer",
    "InvalidArguments",
    "MissingRuntime",
    "ModelFailed",
    "ModelRejected",
    "Overloaded",
    "Quarantined",
    "ScaffoldError",
    "SpecialistError",
    "UnknownSpecialist",
    "UntrustedFolder",
    "WatchError",
    "WorkerDied",
]


class SpecialistError(Exception):
    """The root of the tree."""


class UnknownSpecialist(SpecialistError):
    """No bundled or installed specialist has this name."""


class CardError(SpecialistError):
    """A folder without a card, or with one that does not say what it must."""


class UntrustedFolder(SpecialistError):
    """The folder's Python is not imported, and its model is not run unlimited, before somebody says ``trust=True``."""


class DefinitionError(SpecialistError):
    """A function that cannot be offered as a typed call."""


class InvalidArguments(SpecialistError):
    """The arguments do not fit the types of the call. ``problems`` holds one line per argument."""

    def __init__(self, message: str, *, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class InvalidAnswer(SpecialistError):
    """A function, or a big model asked in its place, answered with something of another type, or with NaN."""


class ModelRejected(SpecialistError):
    """A model file that is missing, unreadable, not the one its card names, or holds what is not loaded."""


class ModelFailed(SpecialistError):
    """The model could not run on these inputs, or its output is not finite."""


class WorkerDied(ModelFailed):
    """The child process that ran a model nobody trusts died, or was killed at its limit of memory or time."""


class Quarantined(SpecialistError):
    """Two child processes died of this input; a third is not spent on it."""


class Overloaded(SpecialistError):
    """Too many calls wait for the model already. ``wait``: the seconds a new one would wait; ``None`` is unknown."""

    def __init__(self, message: str, *, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class DeadlinePassed(SpecialistError):
    """The time for an answer was over before there was one; what waited was taken out, what ran was stopped."""


class CasesError(SpecialistError):
    """A file of labelled cases cannot be used; the message names the line."""


class CertificateError(SpecialistError):
    """What should be a certificate is none, or belongs to another specialist."""


class CannotCertify(SpecialistError):
    """The cases do not support the claim. ``reason``: ``"too few"``, ``"too wrong"`` or ``"nothing accepted"``.

    ``needed``: how many cases would be needed if they went on like these; ``None``: no number would do, or none is
    known. ``group``: of which group, if the cases have groups.
    """

    def __init__(self, message: str, *, reason: str, needed: int | None = None, group: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.needed = needed
        self.group = group


class WatchError(SpecialistError):
    """A watch's store cannot be used, or a label is for no answer that waits; the message says what to see to."""


class ScaffoldError(SpecialistError):
    """A new specialist's folder cannot be written under this name."""


class MissingRuntime(SpecialistError):
    """ONNX Runtime is not installed."""


class CannotAnswer(SpecialistError):
    """Raise it in a specialist's function to say that there is no answer; the message is the reason."""

"""Test doubles for applications built on a brain, as public and as tested as the rest.

* :class:`ScriptedModel` says what it is told to say, records what it was asked, and complains of unused steps.
* :class:`SimulatedModel` answers with a stated accuracy, price and latency, the same way every time; it also plays a
  judge, a verifier, a reviewer and a reviser, as biased and as wrong as it is told to be.
* :class:`FakeEndpoint` is a real HTTP server on this machine that speaks chat completions, has faults to order, and
  keeps its own meter.
* :func:`check_store` sees whether a store of your own keeps what a ledger's store promises.
* :func:`failpoints` makes something happen at a named place: a kill, an error, a pause.

None of them needs a key or a network.
"""

from __future__ import annotations

from ..storage.failpoints import failpoints
from .conformance import check_store
from .explanations import polish
from .fake_endpoint import FakeEndpoint, Meter, Metered, Received
from .replies import Fault, Reply, call, reply
from .scripted import ScriptedModel, ScriptError
from .simulated import SimulatedModel
from .simulated_roles import SimulatedJudge, SimulatedReviewer, SimulatedReviser, SimulatedVerifier

__all__ = [
    "FakeEndpoint",
    "Fault",
    "Meter",
    "Metered",
    "Received",
    "Reply",
    "ScriptError",
    "ScriptedModel",
    "SimulatedJudge",
    "SimulatedModel",
    "SimulatedReviewer",
    "SimulatedReviser",
    "SimulatedVerifier",
    "call",
    "check_store",
    "failpoints",
    "polish",
    "reply",
]

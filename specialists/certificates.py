"""``certificate.json``: the promise that a calibration found, and everything that it holds for.

It names what was measured, so that it can be told when it speaks of something else: another file in the folder, another
model, provider or version of ONNX Runtime, another verifier or ladder. Then it is void. This module knows nothing of
how a certificate is made or where answers come from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .card import CARD, file_hash, listed_files
from .errors import CertificateError
from .files import FileProblem, read_plain
from .ladder import CertificateState, Floors
from .signatures import problems_of
from .statistics import check_histogram

__all__ = ["CERTIFICATE", "Certificate", "Drawn", "GroupPolicy", "folder_digest", "read_certificate"]

CERTIFICATE = "certificate.json"
MOST_BYTES = 4 * 1024**2
LONGEST_GROUP = 200
"""Characters of a group's name."""

POLICY_FORMAT = 1
"""Version of what ``policy`` means: floors by rung and verdict, as :func:`specialists.ladder.decide` reads them."""

Drawn = Literal["distinct", "drawn", "generated"]
"""Each input once; as they were drawn, with whatever came twice; made by the specialist's own generator."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Level = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class FloorsOf(BaseModel):
    """The floors of one rung; see :class:`specialists.Floors`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    passed: Share | None = None
    unknown: Share | None = None
    failed: Share | None = None

    def floors(self) -> Floors:
        """As the ladder reads them."""
        return Floors(self.passed, self.unknown, self.failed)


class GroupPolicy(BaseModel):
    """What was certified for one group of calls.

    ``group``: the opaque string; ``None`` for calls without. Of ``cases`` testing cases ``n`` were accepted without the
    big model, ``verified`` of them by a proof, and ``errors`` of the ``n`` were wrong. ``level``: the part of delta
    that this policy was tested at. ``policy``: floors by rung; a rung that is not named is done without.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: Annotated[str, Field(max_length=LONGEST_GROUP)] | None = None
    cases: Count
    n: Count
    errors: Count
    verified: Count = 0
    level: Level
    coverage: Share
    coverage_low: Share
    coverage_high: Share
    policy: dict[str, FloorsOf]


class Certificate(BaseModel):
    """At most ``alpha`` of the answers that are accepted without the big model are wrong, at confidence 1 - ``delta``.

    It is about calls like the cases: drawn from where they were drawn. ``n``, ``errors``, ``coverage`` are sums over
    the groups, with the 95 % interval of the coverage. ``cases_sha256``: over the cases in a canonical form.
    ``uses``: how often these cases had been looked at before. ``folder``: the digest of the folder's files.
    ``ladder``: the digest of what is declared in code. ``models``: what ran. ``scores_edges``, ``scores_counts``: the
    first rung's confidences, for the test of drift.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    specialist: str
    alpha: Level
    delta: Level
    n: Count
    errors: Count
    coverage: Share
    coverage_low: Share
    coverage_high: Share
    policy_format: Literal[1] = 1
    groups: tuple[GroupPolicy, ...]
    cases: Count
    cases_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    drawn: Drawn
    uses: Count = 0
    folder: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    ladder: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    models: tuple[str, ...]
    provider: str | None = None
    precision: str | None = None
    onnxruntime: str | None = None
    made: date
    command: str | None = None
    scores_edges: tuple[float, ...] = ()
    scores_counts: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _may_be_watched(self) -> Self:
        if self.scores_edges or self.scores_counts:
            check_histogram(self.scores_edges, self.scores_counts)
        return self

    @property
    def id(self) -> str:
        """Its own digest: another calibration has another."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def of(self, group: str | None) -> GroupPolicy | None:
        """What was certified for ``group``; ``None``: nothing."""
        return next((each for each in self.groups if each.group == group), None)

    def state(self, group: str | None) -> CertificateState:
        """How it stands in a call of ``group``, so far as that can be told before anything has run."""
        if self.of(group) is None:
            which = "calls without a group" if group is None else f"the group {group[:64]!r}"
            return CertificateState("missing", f"none was made for {which}", self.id, group=group)
        return CertificateState(
            "valid", id=self.id, alpha=self.alpha, delta=self.delta, group=group, holds_for=self.models
        )

    def problem(self, *, specialist: str, folder: str | None, ladder: str) -> str | None:
        """Why it is void for a specialist of these digests; ``None``: it holds, as far as its files go."""
        if specialist != self.specialist:
            return f"it is of the specialist {self.specialist!r}"
        if folder != self.folder:
            return "the folder's files are not those that it was made with"
        if ladder != self.ladder:
            return "the ladder or the verifier is not the one that it was made with"
        return None

    def sentence(self) -> str:
        """What it promises, in words."""
        errors = f"{self.errors:,} wrong" if self.errors else "none wrong"
        rest = [f"calibrated {self.made.isoformat()} on {self.cases:,} cases {_DRAWN[self.drawn]}"]
        rest += [f"for {len(self.groups)} groups of calls"] if len(self.groups) > 1 else []
        if self.uses:
            rest.append(f"whose results had been looked at {self.uses} time{'s' * (self.uses > 1)} before")
        wrong, sure = f"{100 * self.alpha:g} %", f"{100 * (1 - self.delta):g} %"
        covered, low, high = (f"{100 * each:.1f}" for each in (self.coverage, self.coverage_low, self.coverage_high))
        return (
            f"Answers of {self.specialist} that are accepted without the big model are wrong at most {wrong} of the"
            f" time, with {sure} confidence, for calls like the cases: {errors} of {self.n:,} accepted;"
            f" {covered} % of the cases were accepted ({low} to {high} %); {', '.join(rest)}."
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all. Raises ``OSError``."""
        target = Path(path)
        part = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            part.write_text(self.model_dump_json(indent=1) + "\n", "utf-8")
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)


_DRAWN: dict[str, str] = {
    "distinct": "(each input once)",
    "drawn": "(as drawn, with repeats)",
    "generated": "(made by its generator)",
}


def read_certificate(folder: str | os.PathLike[str]) -> Certificate | None:
    """The certificate in a folder, or in the file that is named; ``None`` when there is none.

    Raises :class:`CertificateError` when what is there is not one.
    """
    path = Path(folder)
    inside, name = (path, CERTIFICATE) if path.is_dir() else (path.parent, path.name)
    if not os.path.lexists(inside / name):
        return None
    try:
        return Certificate.model_validate_json(read_plain(name, within=inside, limit=MOST_BYTES))
    except FileProblem as problem:
        raise CertificateError(f"{inside / name} {problem}") from None
    except ValidationError as error:
        told = "; ".join(problems_of(error)[:3])
        raise CertificateError(f"{inside / name} is not a certificate: {told}; calibrate anew") from None


def folder_digest(folder: Path, hashes: Mapping[str, str] | None = None) -> str:
    """Sha256 over the sorted paths and hashes of all files of ``folder`` but the certificate and the README.

    ``hashes``: of the files that were checked against the card just now, and need not be read again. Raises
    :class:`CertificateError` for a file that cannot be read.
    """
    known = hashes or {}
    digest = hashlib.sha256()
    for name in sorted([*(known or listed_files(folder)), CARD]):
        try:
            found = known.get(name) or file_hash(Path(name), within=folder)
        except FileProblem as problem:
            raise CertificateError(f"{folder / name} {problem}") from None
        digest.update(f"{name}\0{found}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()

"""``brain specialists show``: everything that one specialist claims, as a page or as one JSON object.

The card and the hashes are read first. Code is run only when every file is the one that the card names, and only where
it is trusted: what is bundled, or anything with ``--trust``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .calibrate import show_certificate
from .terminal import complain, mark, table, write, write_json

if TYPE_CHECKING:
    from specialists import Card, Certificate, Specialist

__all__ = ["show"]

FORMAT = 1


UNSEEN = "its Python was not run, so its types and what it declares are not shown; read it, then add --trust"


def show(name: str, *, as_json: bool, trust: bool, before_code: Callable[[str], None]) -> int:
    """Print it; exit code 1 when a file is not as the card says. ``before_code`` is called before any of it is run."""
    from specialists.card import file_problems, read_card
    from specialists.registry import find, folder_of, names

    folder = folder_of(name)
    card = None if folder is None else read_card(folder)
    problems = {} if folder is None or card is None else dict(file_problems(folder, card))
    specialist = None
    codeless = card is not None and card.task is not None
    seen = trust or codeless or names().get(name) == "bundled"
    if not problems and seen:
        if not codeless:
            before_code(name)
        specialist = find(name, trust=True).specialist  # no model is opened by that
    data = {"name": name, "description": None} | _data(folder, card, problems, specialist)
    data["certificate"] = None if folder is None else _certificate(folder, specialist, data["name"])
    data["note"] = None if seen or problems else UNSEEN
    if as_json:
        write_json(data)
    else:
        _page(data)
        if data["note"]:
            write()
            write(data["note"])
    if problems:
        complain(f"{next(iter(problems.values()))}; its code was not run")
    return 1 if problems else 0


def _data(
    folder: Path | None, card: Card | None, problems: dict[str, str], specialist: Specialist[..., Any] | None
) -> dict[str, Any]:
    data: dict[str, Any] = {} if card is None else card.model_dump(mode="json", exclude={"format", "files"})
    data["folder"] = None if folder is None else str(folder)
    data["files"] = [
        {"file": name, "sha256": None if card is None else card.files.get(name), "problem": problems.get(name)}
        for name in sorted({*(card.files if card else ()), *problems})
    ]
    # "parameters" is the number of weights in a card and the arguments of a call elsewhere; here both have own names.
    data["weights"] = data.pop("parameters", None)
    if specialist is not None:
        data["name"] = specialist.name
        data["description"] = data.get("description") or specialist.description
        data["declared"] = {
            "verifier": None if specialist.verify is None else getattr(specialist.verify, "__name__", "yes"),
            "sound": specialist.sound,
            "complete": specialist.complete,
            "min_confidence": specialist.min_confidence,
            "timeout": specialist.timeout,
            "steps": specialist.steps if specialist.steps == "auto" else list(specialist.steps),
            "next": None if specialist.next is None else specialist.next.name,
        }
        data["arguments"] = specialist.parameters
        data["answer"] = specialist.returns
    return data | {"format": FORMAT}


def _certificate(folder: Path, specialist: Specialist[..., Any] | None, name: str) -> dict[str, Any] | None:
    """The certificate in ``folder`` as a sentence, and whether it holds for the files that lie there now."""
    from specialists.certificates import folder_digest, read_certificate
    from specialists.errors import CertificateError
    from specialists.runtime import runtime_version

    try:
        certificate = read_certificate(folder)
        if certificate is None:
            return None
        digest = folder_digest(folder)
    except CertificateError as error:
        return {"status": "void", "reason": str(error), "sentence": None, "certificate": None}
    ladder = certificate.ladder if specialist is None else specialist.ladder_digest
    reason = certificate.problem(specialist=name, folder=digest, ladder=ladder)
    installed = runtime_version()
    if reason is None and certificate.onnxruntime not in (None, installed):
        reason = f"it was made with ONNX Runtime {certificate.onnxruntime}, and installed is {installed}"
    if reason is None and specialist is None:
        return _shown(certificate, "unknown", "its code was not run, so its ladder was not looked at")
    return _shown(certificate, "valid" if reason is None else "void", reason)


def _shown(certificate: Certificate, status: str, reason: str | None) -> dict[str, Any]:
    return {
        "status": status,
        "reason": reason,
        "sentence": certificate.sentence(),
        "certificate": certificate.model_dump(mode="json"),
    }


def _page(data: dict[str, Any]) -> None:
    write(f"{data['name']} {data.get('version') or ''}".rstrip())
    if data["description"]:
        write(f"  {data['description']}")
    write()
    facts = {
        "folder": data["folder"],
        "task": data.get("task"),
        "licence": data.get("license"),
        "learned from": data.get("data"),
        "made with": data.get("command"),
        "model from": None
        if data.get("model") is None
        else f"{data['model']['name']} ({data['model']['sha256'][:16]})",
        "weights": None if data["weights"] is None else f"{data['weights']:,}",
        **_declared(data.get("declared")),
    }
    for what, value in facts.items():
        if value is not None:
            write(f"  {what:<13} {value}")
    for title, key in (("arguments", "arguments"), ("answer", "answer")):
        if key in data:
            write()
            write(f"{title}:")
            write("  " + json.dumps(data[key], indent=2, ensure_ascii=False).replace("\n", "\n  "))
    if data["files"]:
        write()
        write("files:")
        for entry in data["files"]:
            status = mark("failed" if entry["problem"] else "ok")
            write(f"  {status} {entry['file']:<24} {entry['problem'] or entry['sha256'][:16]}")
    if (held := data["certificate"]) is not None:
        write()
        write(f"certificate: {held['status']}" + (f": {held['reason']}" if held["reason"] else ""))
        if held["certificate"] is not None:
            show_certificate(held["certificate"], held["sentence"])
    if data.get("measured"):
        table(
            ["measured", "value", "n", "on", "command"],
            [(each["what"], each["value"], each["n"], each["on"], each["command"]) for each in data["measured"]],
            right=["value", "n"],
        )


def _declared(declared: dict[str, Any] | None) -> dict[str, str | None]:
    if declared is None:
        return {}
    claims = [claim for claim in ("sound", "complete") if declared[claim]]
    verifier = declared["verifier"]
    floor, timeout, steps = declared["min_confidence"], declared["timeout"], declared["steps"]
    return {
        "verifier": "none"
        if verifier is None
        else f"{verifier} ({' and '.join(claims) or 'neither sound nor complete'})",
        "floor": "none" if floor is None else f"confidence {floor:g}",
        "time limit": "none" if timeout is None else f"{timeout:g} s for one attempt",
        "steps": "as many as pay" if steps == "auto" else " then ".join(map(str, steps)) or None,
        "next": declared["next"],
    }

"""``brain specialists pack``: a clean, sealed copy of a folder; with weights of one byte, where that is wanted.

A copy with int8 weights is kept only when the specialist still answers its own labelled cases: they are solved before
and after, by the ladder that live calls climb. Quantising says nothing when it leaves a graph as it was, which happens
when the weights reach their node through another node, such as a ``Transpose``; so constants are folded first, and what
came out is counted. This module knows nothing of terminals.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from .card import CARD, Card, listed_files, read_card, seal, verify_files
from .errors import CardError, CasesError, MissingRuntime, ModelRejected, ScaffoldError, UntrustedFolder
from .evaluation import Correct, Evaluation, Row, check_row, evaluate, read_rows
from .graph_check import check_graph
from .loops import run_sync
from .registry import Found, find
from .runtime import import_runtime

__all__ = ["CASES", "FORMAT", "MAX_LOSS", "Packed", "Quantized", "pack", "quantize_model"]

CASES = "cases.jsonl"
FORMAT = 1
"""Version of :meth:`Packed.to_json`."""

MAX_LOSS = 0.01
"""The share of the cases that may be lost unless another is stated. With fewer than a hundred, none may."""

_TIMED_CASES = 8
_TIMED_ROUNDS = 5
_TIMED_SECONDS = 10.0

_WEIGHTED = {"MatMul", "Gemm", "Conv", "LSTM", "Attention"}
"""Nodes with weights that can be quantised; the weights are their second input."""

_INTEGER = {"MatMulInteger", "ConvInteger", "DynamicQuantizeLSTM", "QAttention"}

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """What became of one model file. ``nodes``: with weights that now have one byte; ``left``: that stay as they were.

    ``bytes_before`` and ``bytes_after`` are the sizes of the file.
    """

    file: str
    nodes: int
    left: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True, slots=True)
class Packed:
    """What :func:`pack` did. ``folder`` is where the copy lies; ``None`` when it was refused, and ``reason`` says why.

    ``before`` and ``after``: the counts on the cases; ``None`` where none were solved. ``loss``: the share of cases
    handled wrongly after and rightly before, netted, or the rise of the share accepted and wrong where that is more.
    ``ms_before`` and ``ms_after``: CPU milliseconds of one question, the median of a few questions asked in turn.
    """

    name: str
    folder: Path | None
    reason: str | None
    models: tuple[Quantized, ...]
    before: Evaluation | None
    after: Evaluation | None
    loss: float | None
    max_loss: float | None
    ms_before: float | None
    ms_after: float | None
    files: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether the copy was kept."""
        return self.folder is not None

    def to_json(self) -> dict[str, Any]:
        """One object; what cannot be told is ``null``."""
        return {
            "name": self.name,
            "accepted": self.accepted,
            "folder": None if self.folder is None else str(self.folder),
            "reason": self.reason,
            "precision": "int8" if self.models else None,
            "models": [asdict(model) for model in self.models],
            "before": None if self.before is None else self.before.to_json(),
            "after": None if self.after is None else self.after.to_json(),
            "loss": self.loss,
            "max_loss": self.max_loss,
            "ms_before": self.ms_before,
            "ms_after": self.ms_after,
            "files": list(self.files),
            "format": FORMAT,
        }


def pack(
    folder: Path,
    out: Path,
    *,
    quantize: Literal["int8"] | None = None,
    trust: bool = False,
    max_loss: float = MAX_LOSS,
    cases: Path | None = None,
    before_code: Callable[[], None] | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Write a sealed copy of ``folder`` to ``out``: the files that its card lists, its card and its README.

    Args:
        folder: A specialist's folder, whole and sealed. It is never changed.
        out: Where the copy goes. Nothing may be there yet, and nothing is there afterwards when it was refused.
        quantize: ``"int8"``: give every model weights of one byte. The models are then opened in this process, and
            the folder's code is run, on its cases: only with ``trust``.
        trust: Somebody has looked at the folder.
        max_loss: The share of the cases, from 0 to 1, that a quantised specialist may lose.
        cases: Labelled rows to judge by, in place of the folder's own ``cases.jsonl``.
        before_code: Called just before the folder's code is run.
        progress: Called as the work goes on.

    Raises:
        CardError, ModelRejected: the folder is not what its card says, or a model cannot be read or opened.
        CasesError: there are no cases, or one cannot be used.
        ScaffoldError: something is at ``out`` already.
        UntrustedFolder: ``quantize`` without ``trust``.
        MissingRuntime: a package that quantising needs is not installed.
    """
    if out.exists() or out.is_symlink():
        raise ScaffoldError(f"{str(out)!r} is there already; choose another folder with --out, or remove it first")
    folder, out = folder.resolve(), out.absolute()
    card = read_card(folder)
    verify_files(folder, card)
    if quantize and not trust:
        raise UntrustedFolder(
            f"to quantise {str(folder)!r} its models are opened in this process, and what code it has is run with your"
            " rights; look at it, then pass trust=True (--trust on the command line)"
        )
    say = progress or (lambda what, done, of: None)
    rows = _rows(folder, cases) if quantize else []
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that it is moved there whole; whoever lists the parent meanwhile sees a hidden folder.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as place:
        copy = Path(place) / out.name
        _copy(folder, copy)
        if quantize is None:
            files = tuple(sorted(seal(copy).files))
            copy.rename(out)
            return Packed(card.name, out, None, (), None, None, None, None, None, None, files)
        models = tuple(_quantize_files(copy, say))
        if not models:
            raise CardError(f"{str(folder)!r} has no .onnx file, so there is nothing to quantise")
        if not any(model.nodes for model in models):
            names = ", ".join(model.file for model in models)
            why = f"nothing was quantised: no node of {names} has weights that can be (a MatMul, Gemm, Conv or LSTM)"
            return Packed(card.name, None, why, models, None, None, None, max_loss, None, None, ())
        _write_precision(copy, card)
        seal(copy)
        if before_code is not None and card.task is None:
            before_code()
        original, packed = (
            each._replace(specialist=each.specialist.with_certificate(None))  # the copy will have none
            for each in (find(folder, trust=True), find(copy, trust=True))
        )
        before = _solve(original, rows, lambda done: say("cases before", done, len(rows)))
        after = _solve(packed, rows, lambda done: say("cases after", done, len(rows)))
        loss = _loss(before, after)
        times = _times(original, packed, rows, say)
        files, reason = tuple(sorted(packed.card.files)) if packed.card else (), None
        if loss > max_loss:
            reason = (
                f"with int8 weights {loss:.2%} of {before.n} cases are lost, and at most {max_loss:.2%} may be;"
                " keep the model as it is, or state another --max-loss"
            )
        else:
            _write_measured(copy, after, loss)
            files = tuple(sorted(seal(copy).files))
            copy.rename(out)
    return Packed(
        card.name,
        None if reason else out,
        reason,
        models,
        before,
        after,
        loss,
        max_loss,
        *times,
        () if reason else files,
    )


def quantize_model(data: bytes, name: str = "model.onnx") -> tuple[bytes, Quantized]:
    """A model with int8 weights, activations quantised as they come, and what was done. ``name`` is for messages.

    Weights have one scale a column and use seven of the eight bits: on CPUs without VNNI instructions sums of full
    eight bits overflow, and a model is not to answer otherwise on another machine.

    Raises :class:`MissingRuntime` and :class:`ModelRejected`.
    """
    onnx, runtime = _packages()
    check_graph(data, name=name)
    from onnxruntime.quantization import QuantType, quantize_dynamic

    try:
        with tempfile.TemporaryDirectory(prefix="specialists-int8-") as place:
            folded, quantized = Path(place) / "folded.onnx", Path(place) / "int8.onnx"
            options = runtime.SessionOptions()
            # Basic: constants are folded, transposed weights among them; no node of ONNX Runtime's own comes in.
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.optimized_model_filepath = str(folded)
            options.log_severity_level = 4
            original = runtime.InferenceSession(data, options, ["CPUExecutionProvider"])
            model = onnx.load(folded)
            before = _count(model.graph)
            # What it looks for to see that this has been done; without it, it complains on the root logger.
            note = model.metadata_props.add()
            note.key, note.value = "onnx.quant.pre_process", "onnxruntime.quant"
            onnx.save(model, folded)
            with _quiet():
                quantize_dynamic(folded, quantized, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
            result = quantized.read_bytes()
            after = _count(onnx.load_from_string(result).graph)
            options.optimized_model_filepath = ""
            opened = runtime.InferenceSession(result, options, ["CPUExecutionProvider"])
    except Exception as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise ModelRejected(f"{name} cannot be quantised: {why}") from None
    if _face(original) != _face(opened):
        raise ModelRejected(f"{name} cannot be quantised: its inputs or outputs would change")
    nodes = after[1] - before[1]
    return result, Quantized(name, nodes, after[0], len(data), len(result))


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser logs by `logging.info`, which sets up the root logger of an application that has not done so."""
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)


def _packages() -> tuple[Any, Any]:
    try:
        import onnx

        onnxruntime = import_runtime()
    except ImportError as error:
        extra = "cpu" if error.name == "onnxruntime" else "pack"
        raise MissingRuntime(
            f"quantising needs the package {error.name}, which is not installed:"
            f" pip install 'brain-specialists[{extra}]'"
        ) from None
    return onnx, onnxruntime


def _count(graph: Any) -> tuple[int, int]:
    """Nodes with weights in float, and nodes that compute with integers."""
    constants = {tensor.name for tensor in graph.initializer} - {value.name for value in graph.input}
    weighted = sum(
        node.op_type in _WEIGHTED and len(node.input) > 1 and node.input[1] in constants for node in graph.node
    )
    return weighted, sum(node.op_type in _INTEGER for node in graph.node)


def _face(session: Any) -> list[tuple[str, str, list[Any]]]:
    return [(each.name, each.type, each.shape) for each in (*session.get_inputs(), *session.get_outputs())]


def _quantize_files(folder: Path, say: Progress) -> Iterator[Quantized]:
    files = [name for name in listed_files(folder) if name.endswith(".onnx")]
    for index, name in enumerate(files):
        say("models", index, len(files))
        data, what = quantize_model((folder / name).read_bytes(), name)
        if what.nodes:
            (folder / name).write_bytes(data)
        yield what
    say("models", len(files), len(files))


def _copy(folder: Path, copy: Path) -> None:
    """Everything that the card lists, the card and the README; no certificate, for it holds for other files."""
    for name in (CARD, "README.md", *listed_files(folder)):
        if (folder / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, copy / name)


def _rows(folder: Path, cases: Path | None) -> list[Row]:
    path = cases or folder / CASES
    if cases is None and not path.is_file():
        raise CasesError(
            f"{str(folder)!r} has no {CASES}, so nothing tells whether it still answers as it did;"
            " write labelled cases there, or name a file with --cases"
        )
    rows = list(read_rows(path))
    if not rows:
        raise CasesError(f"{str(path)!r} holds no cases, so nothing tells whether it still answers as it did")
    return rows


def _solve(found: Found, rows: Sequence[Row], done: Callable[[int], None]) -> Evaluation:
    for row in rows:
        check_row(row, found.specialist, found.correct)
    correct: Correct | None = found.correct
    return evaluate(found.specialist, rows, correct=correct, progress=lambda so_far: done(so_far.n))


def _loss(before: Evaluation, after: Evaluation) -> float:
    """The greater of two shares of all cases: fewer handled rightly, more accepted and wrong. Never below zero."""

    def rightly(result: Evaluation) -> int:
        return result.correct + result.out_of_scope_abstained

    return max(0, rightly(before) - rightly(after), after.wrong_accepted - before.wrong_accepted) / before.n


def _times(before: Found, after: Found, rows: Sequence[Row], say: Progress) -> tuple[float | None, float | None]:
    """CPU milliseconds of one question, before and after: the same few questions, asked in turn, medians."""
    asked = []
    for row in rows[:_TIMED_CASES]:
        try:
            asked.append(before.specialist.signature.check_json(json.dumps(row.input)))
        except Exception:
            continue  # the types refuse it; no model is asked
    spent: tuple[list[float], list[float]] = ([], [])
    began = time.monotonic()
    for number in range(_TIMED_ROUNDS):
        say("timing", number, _TIMED_ROUNDS)
        for arguments in asked:
            if time.monotonic() - began > _TIMED_SECONDS:
                break
            for found, seconds in zip((before, after), spent, strict=True):
                start = time.process_time()
                run_sync(lambda found=found, arguments=arguments: found.specialist.climb(arguments))  # type: ignore[misc]
                seconds.append(time.process_time() - start)
    one, other = (1000 * statistics.median(seconds) if seconds else None for seconds in spent)
    return one, other


def _write_precision(folder: Path, card: Card) -> None:
    """State it in the card, and take out what was measured of the model as it was."""
    path = folder / CARD
    text = re.sub(r"^precision[ \t]*=.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
    text = re.sub(r"^(format[ \t]*=.*\n)", '\\1precision = "int8"\n', text, count=1, flags=re.MULTILINE)
    parts = re.split(r"^(?=\[)", text, flags=re.MULTILINE)
    path.write_text("".join(part for part in parts if not part.startswith("[[measured]]")), "utf-8")
    _expect(folder, card.model_copy(update={"precision": "int8", "measured": ()}))


def _write_measured(folder: Path, after: Evaluation, loss: float) -> None:
    """Put the figures of the cases into the card, in place of those of the model as it was."""
    card, path = read_card(folder), folder / CARD
    tables = []
    for what, value in (
        ("accepted and right, or rightly abstained, of its cases", after.correct + after.out_of_scope_abstained),
        ("share of its cases lost by int8", round(loss, 6)),
    ):
        command = json.dumps("brain specialists pack FOLDER --quantize int8")
        tables.append(f'[[measured]]\nwhat = "{what}"\nvalue = {value}\nn = {after.n}\ncommand = {command}\n\n')
    head, files = re.split(r"^(?=\[files\])", path.read_text("utf-8"), maxsplit=1, flags=re.MULTILINE)
    path.write_text(head + "".join(tables) + files, "utf-8")
    _expect(folder, card.model_copy(update={"measured": read_card(folder).measured}))


def _expect(folder: Path, card: Card) -> None:
    if read_card(folder) != card:
        raise CardError(
            f"the card of {card.name} cannot be rewritten: keep `format` and `precision` on lines of their own, and"
            " the tables last"
        )

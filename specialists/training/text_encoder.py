"""A sentence encoder that somebody brings: its folder read and looked through, and vectors made of texts.

A folder as sentence-transformers or optimum export it: ``model.onnx`` (or ``onnx/model.onnx``) and ``tokenizer.json``
(or ``vocab.txt`` of a BERT). The encoder stays as it is; what is learned is a head over its vectors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from specialists import CardError, MissingRuntime, ModelFailed, ModelRejected, OnnxModel
from specialists.graph_check import check_graph
from specialists.texts import Tokens
from specialists.training.text_graph import Head, add_head

__all__ = ["Encoder", "read_encoder", "vectors_of"]

INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
OUTPUTS = ("sentence_embedding", "last_hidden_state", "token_embeddings", "hidden_states", "embeddings", "output")
"""Of several outputs the first of these is taken."""
MOST_TOKENS = 256
MOST_BYTES = 2 * 1024**3 - 16 * 1024**2
"""The head must find room beside it in one file."""
AT_ONCE, CHUNK = 32, 512
OLDEST_OPSET = 13
_EXPORT = "export it with `optimum-cli export onnx --task feature-extraction`"


class Encoder(NamedTuple):
    """A sentence encoder. ``sha256``: of its model and its tokenizer together."""

    model: onnx.ModelProto
    output: str
    tokenizer: bytes
    most_tokens: int
    sha256: str

    def tokens(self) -> Tokens:
        """How its texts are read."""
        return Tokens(self.tokenizer, most=self.most_tokens, name="tokenizer.json")

    def with_head(self, head: Head | None) -> bytes:
        """The bytes of the model with a head, or one that gives vectors."""
        data: bytes = add_head(self.model, self.output, head).SerializeToString()
        return data

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        return sum(int(np.prod(each.dims)) for each in self.model.graph.initializer if len(each.dims) > 1)


def read_encoder(folder: Path) -> Encoder:
    """Read and look through the folder of an encoder.

    Raises :class:`ModelRejected` or :class:`CardError`, in one sentence, for one that cannot be used, and
    :class:`MissingRuntime`.
    """
    path = next((each for each in (folder / "model.onnx", folder / "onnx" / "model.onnx") if each.is_file()), None)
    if path is None:
        raise CardError(f"the encoder {str(folder)!r} has no model.onnx and no onnx/model.onnx; {_EXPORT}")
    if path.stat().st_size > MOST_BYTES:
        raise ModelRejected(f"the encoder {str(path)!r} has more than {MOST_BYTES:,} bytes; take a smaller one")
    data = path.read_bytes()
    check_graph(data, name=f"the encoder {str(path)!r}")
    model = onnx.load_from_string(data)
    output = _check_ends(model, path)
    tokenizer = _tokenizer(folder, path)
    most = _most_tokens([folder, path.parent])
    Tokens(tokenizer, most=most, name=f"the tokenizer in {str(folder)!r}")  # raises when it cannot be read
    return Encoder(model, output, tokenizer, most, hashlib.sha256(data + b"\0" + tokenizer).hexdigest())


def _check_ends(model: onnx.ModelProto, path: Path) -> str:
    """The output to take; raises :class:`ModelRejected` when inputs or outputs are not an encoder's."""
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise ModelRejected(f"the encoder {str(path)!r} has opset {opset}; export it with {OLDEST_OPSET} or later")
    constants = {each.name for each in model.graph.initializer}
    inputs = {entry.name: entry.type.tensor_type for entry in model.graph.input if entry.name not in constants}
    if "input_ids" not in inputs or not set(inputs) <= INPUTS:
        raise ModelRejected(
            f"the encoder {str(path)!r} has the inputs {', '.join(sorted(inputs))}; input_ids, attention_mask and"
            f" perhaps token_type_ids are wanted: {_EXPORT}"
        )
    for name, kind in inputs.items():
        dims = kind.shape.dim
        if len(dims) != 2 or any(dim.HasField("dim_value") for dim in dims):
            raise ModelRejected(
                f"the encoder {str(path)!r} takes {name} of a fixed shape; export it with a free number of texts and"
                " of tokens (dynamic axes)"
            )
        if kind.elem_type not in (TensorProto.INT64, TensorProto.INT32):
            raise ModelRejected(
                f"the encoder {str(path)!r} takes {name} of another type than int64 or int32; {_EXPORT}"
            )
    outputs = {
        entry.name: len(entry.type.tensor_type.shape.dim)
        for entry in model.graph.output
        if entry.type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
    }
    usable: list[str] = [name for name, rank in outputs.items() if rank in (2, 3)]
    for name in OUTPUTS:
        if name in usable:
            return name
    if not usable:
        raise ModelRejected(
            f"the encoder {str(path)!r} gives {', '.join(outputs) or 'no numbers'}, none of which is a vector a token"
            f" or a text: {_EXPORT}"
        )
    return max(usable, key=lambda name: outputs[name])  # vectors of tokens rather than a pooled one of unknown making


def _tokenizer(folder: Path, model: Path) -> bytes:
    for place in (folder, model.parent):
        if (place / "tokenizer.json").is_file():
            return (place / "tokenizer.json").read_bytes()
    for place in (folder, model.parent):
        if (place / "vocab.txt").is_file():
            try:
                from tokenizers import BertWordPieceTokenizer
            except ImportError:
                raise MissingRuntime(
                    "a tokenizer is read by the package tokenizers, which is not installed;"
                    " run `pip install 'brain-specialists[encoder]'`"
                ) from None
            lower = bool(_setting([place], "tokenizer_config.json", "do_lower_case", True))
            made = BertWordPieceTokenizer(str(place / "vocab.txt"), lowercase=lower)
            return str(made.to_str()).encode("utf-8")
    raise CardError(
        f"the encoder {str(folder)!r} has no tokenizer.json and no vocab.txt; save its fast tokenizer beside it"
    )


def _most_tokens(places: Sequence[Path]) -> int:
    known = [
        _setting(places, file, name, MOST_TOKENS)
        for file, name in (
            ("sentence_bert_config.json", "max_seq_length"),
            ("tokenizer_config.json", "model_max_length"),
            ("config.json", "max_position_embeddings"),
        )
    ]
    return max(1, min([MOST_TOKENS, *(int(each) for each in known if isinstance(each, int | float) and each >= 8)]))


def _setting(places: Sequence[Path], file: str, name: str, default: Any) -> Any:
    for place in places:
        try:
            return json.loads((place / file).read_text("utf-8"))[name]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return default


def vectors_of(
    encoder: Encoder, texts: Sequence[str], folder: Path, tick: Callable[[int, int], None]
) -> NDArray[np.float32]:
    """A vector of length 1 for each text. What was made is kept in ``folder``, so that a stopped run goes on."""
    folder.mkdir(exist_ok=True)
    path = folder / "encoder.onnx"
    path.write_bytes(encoder.with_head(None))
    model, encode = OnnxModel(path), encoder.tokens().encode
    found = []
    for start in range(0, len(texts), CHUNK):
        tick(start, len(texts))
        part = list(texts[start : start + CHUNK])
        key = hashlib.sha256(json.dumps([encoder.sha256, encoder.most_tokens, part]).encode()).hexdigest()
        kept = folder / f"{key[:32]}.npy"
        if not kept.is_file():
            new = kept.with_suffix(".new")
            with new.open("wb") as file:
                np.save(file, _vectors(model, encode, part, partial(_further, tick, start, len(texts))))
            new.replace(kept)
        found.append(np.load(kept, allow_pickle=False))
    model.close()
    return np.concatenate(found)


def _further(tick: Callable[[int, int], None], start: int, of: int, done: int) -> None:
    tick(start + done, of)


def _vectors(
    model: OnnxModel,
    encode: Callable[[list[str]], dict[str, Any]],
    texts: list[str],
    done: Callable[[int], None],
) -> NDArray[np.float32]:
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # texts of one length waste little
    vectors: list[Any] = [None] * len(texts)
    for start in range(0, len(order), AT_ONCE):
        done(start)
        which = order[start : start + AT_ONCE]
        try:
            made = model.run_sync(**encode([texts[i] for i in which]))["vectors"]
        except ModelFailed as error:
            raise ModelRejected(f"the encoder cannot read a text of the data: {error}; {_EXPORT}") from None
        for i, vector in zip(which, made, strict=True):
            vectors[i] = vector
    return np.stack(vectors).astype(np.float32)

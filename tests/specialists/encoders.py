"""A sentence encoder that tests make: a table of vectors, one a token, and a tokenizer of whole words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from .conftest import save


def tokenizer(words: Sequence[str]) -> str:
    """A ``tokenizer.json`` that knows these words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, **{w: n + 2 for n, w in enumerate(words)}}, unk_token="[UNK]"))
    made.normalizer = Lowercase()
    made.pre_tokenizer = Whitespace()
    return str(made.to_str())


def encoder(
    folder: Path,
    words: Sequence[str],
    *,
    dimensions: int = 16,
    types: bool = True,
    output: str = "last_hidden_state",
    dtype: int = TensorProto.INT64,
) -> Path:
    """The folder of an encoder, as it is exported."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(tokenizer(words), "utf-8")
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 64}))
    chance = np.random.default_rng(0)
    table = chance.normal(size=(len(words) + 2, dimensions)).astype(np.float32)
    constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.float32(0.0), "none")]
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    inputs = [helper.make_tensor_value_info(name, dtype, ["batch_size", "sequence_length"]) for name in names]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["looked_up" if types else output])]
    if types:
        constants.append(
            numpy_helper.from_array(np.array([[0.5] * dimensions, [9.0] * dimensions], np.float32), "kinds")
        )
        nodes += [
            helper.make_node("Gather", ["kinds", "token_type_ids"], ["kind"]),
            helper.make_node("Add", ["looked_up", "kind"], [output]),
        ]
    shape = ["batch_size", "sequence_length", dimensions]
    save(
        folder / "model.onnx",
        nodes,
        inputs,
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        constants,
    )
    return folder


def of_tokens(folder: Path, *, most: int = 8) -> Path:
    """A specialist's folder whose card names a tokenizer: the word ``happy`` is glad, ``awful`` is sad."""
    from specialists.card import CARD, seal

    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(tokenizer(["happy", "awful"]), "utf-8")
    value = helper.make_tensor_value_info
    table = np.array([[0, 0], [0, 0], [6, 0], [0, 6]], np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["found"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "two"], ["weight"]),
        helper.make_node("Mul", ["found", "weight"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["logits"], keepdims=0),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([2], np.int64), "two"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ]
    inputs = [value(name, TensorProto.INT64, ["batch", "tokens"]) for name in ("input_ids", "attention_mask")]
    save(folder / "model.onnx", nodes, inputs, [value("probabilities", TensorProto.FLOAT, ["batch", 2])], constants)
    (folder / "labels.txt").write_text("glad\nsad\n")
    (folder / "cases.jsonl").write_text(
        '{"input": {"text": "so happy"}, "expected": {"label": "glad"}}\n'
        '{"input": {"text": "an awful day"}, "expected": {"label": "sad"}}\n'
        '{"input": {"text": "a stone"}, "expected": null}\n'
    )
    (folder / CARD).write_text(
        'format = 1\nname = "mood"\nversion = "0.1.0"\ndescription = "Glad or sad."\ntask = "text-classification"\n\n'
        f'[text_classification]\nfeatures = "tokenizer"\ntokenizer = "tokenizer.json"\nmax_tokens = {most}\n'
        "min_confidence = 0.6\n"
    )
    seal(folder)
    return folder

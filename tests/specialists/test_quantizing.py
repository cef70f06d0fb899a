"""Packing a folder: what is copied, what int8 does to its models, and when the copy is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from brain import cli
from specialists import CardError, CasesError, MissingRuntime, ModelRejected, ScaffoldError, UntrustedFolder, load
from specialists.card import read_card, seal, verify_files
from specialists.quantizing import MAX_LOSS, pack, quantize_model

from .conftest import save
from .folders import of_task, with_code

SIZE = 64

CODE = f"""
from pathlib import Path
import numpy as np
from specialists import Answer, OnnxModel, specialist

model = OnnxModel(Path(__file__).with_name("model.onnx"))

@specialist(min_confidence=0.5)
async def largest(numbers: list[float]) -> Answer[int]:
    "Which of the numbers is largest."
    x = np.zeros((1, {SIZE}), np.float32)
    x[0, : len(numbers)] = numbers
    return Answer(int((await model.run(x=x))["y"][0].argmax()), confidence=1.0)
"""

CARD = """format = 1
name = "largest"
version = "1"
description = "Which of the numbers is largest."
function = "code:largest"

[[measured]]
what = "accuracy"
value = 1.0

[files]
"""

EASY = [{"input": {"numbers": [0.0, 3.0 * place, 20.0, 1.0]}, "expected": 1} for place in range(9, 18)]
CLOSE = {"input": {"numbers": [100.0, 100.05, 0.0]}, "expected": 1}
"""Eight bits do not tell these two apart."""


def model(path: Path, kind: str) -> Path:
    """``y = x`` by a product with the identity, its weights plain or transposed by a node; or other graphs."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SIZE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", SIZE])
    weight = numpy_helper.from_array(np.eye(SIZE, dtype=np.float32), "w")
    nodes = {
        "plain": [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "transposed": [
            helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "turned"], ["y"]),
        ],
        "products": [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Transpose", ["a"], ["turned"], perm=[1, 0]),
            helper.make_node("MatMul", ["a", "turned"], ["square"]),
            helper.make_node("MatMul", ["square", "a"], ["y"]),
        ],
        "none": [helper.make_node("Relu", ["x"], ["y"])],
    }[kind]
    return save(path, nodes, [x], [y], [] if kind == "none" else [weight])


def make(folder: Path, kind: str = "plain", cases: list[dict[str, object]] = EASY) -> Path:
    folder.mkdir()
    model(folder / "model.onnx", kind)
    (folder / "code.py").write_text(CODE)
    (folder / "specialist.toml").write_text(CARD)
    (folder / "README.md").write_text("What it is.\n")
    (folder / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    seal(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def operators(data: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(data).graph.node]


@pytest.mark.parametrize("kind", ["plain", "transposed"])
def test_weights_become_integers_and_the_answers_stay(tmp_path: Path, kind: str) -> None:
    folder = make(tmp_path / "largest", kind)
    before = contents(folder)
    packed = pack(folder, tmp_path / "out", quantize="int8", trust=True)
    assert packed.accepted, packed.reason
    assert contents(folder) == before, "the original stays as it is"
    (changed,) = packed.models
    assert (changed.file, changed.nodes, changed.left) == ("model.onnx", 1, 0)
    assert changed.bytes_after == len((tmp_path / "out" / "model.onnx").read_bytes()) < changed.bytes_before / 2
    assert "MatMulInteger" in operators((tmp_path / "out" / "model.onnx").read_bytes())
    assert packed.before is not None
    assert packed.after is not None
    assert packed.before.correct == packed.after.correct == len(EASY)
    assert packed.loss == 0
    assert packed.ms_before is not None
    assert packed.ms_after is not None
    card = read_card(tmp_path / "out")
    verify_files(tmp_path / "out", card)
    assert card.precision == "int8"
    assert card.name == "largest"
    assert [each.value for each in card.measured] == [len(EASY), 0.0], "what was measured of the float model is gone"
    assert load(tmp_path / "out", trust=True).solve_sync(numbers=[1.0, 7.0]).value == 1


def test_without_folding_transposed_weights_would_stay_as_they_are(tmp_path: Path) -> None:
    """Why the graph is folded first, and what comes out is counted: nothing says so otherwise."""
    from onnxruntime.quantization import quantize_dynamic

    source = model(tmp_path / "transposed.onnx", "transposed")
    quantize_dynamic(source, tmp_path / "unfolded.onnx")
    assert "MatMulInteger" not in operators((tmp_path / "unfolded.onnx").read_bytes())
    data, what = quantize_model(source.read_bytes())
    assert operators(data).count("MatMulInteger") == what.nodes == 1


def test_quantising_leaves_the_application_s_logging_alone(tmp_path: Path) -> None:
    code = f"""
import logging
from pathlib import Path
from specialists.quantizing import quantize_model
quantize_model(Path({str(model(tmp_path / "none.onnx", "products"))!r}).read_bytes())
assert logging.root.handlers == [], logging.root.handlers
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_model_with_nothing_to_quantise_is_refused_before_any_code_is_run(tmp_path: Path) -> None:
    ran: list[str] = []
    folder = make(tmp_path / "largest", "none")
    packed = pack(folder, tmp_path / "out", quantize="int8", trust=True, before_code=lambda: ran.append("code"))
    assert not packed.accepted
    assert packed.folder is None
    assert "nothing was quantised: no node of model.onnx" in str(packed.reason)
    assert ran == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["largest"], "nothing is left behind"


def test_cases_that_are_lost_refuse_it_with_figures(tmp_path: Path) -> None:
    folder = make(tmp_path / "largest", cases=[*EASY, CLOSE])
    packed = pack(folder, tmp_path / "out", quantize="int8", trust=True)
    assert not packed.accepted
    assert packed.loss == pytest.approx(0.1)
    assert packed.max_loss == MAX_LOSS
    assert "10.00% of 10 cases are lost, and at most 1.00% may be" in str(packed.reason)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["largest"]
    packed = pack(folder, tmp_path / "out", quantize="int8", trust=True, max_loss=0.1)
    assert packed.accepted
    assert [each.value for each in read_card(tmp_path / "out").measured] == [len(EASY), pytest.approx(0.1)]


def test_other_cases_can_be_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "largest", cases=[CLOSE])
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(EASY[0]) + "\n")
    packed = pack(folder, tmp_path / "out", quantize="int8", trust=True, cases=rows)
    assert packed.accepted
    assert packed.after is not None
    assert packed.after.n == 1


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    pack(
        make(tmp_path / "largest"),
        tmp_path / "out",
        quantize="int8",
        trust=True,
        progress=lambda *each: told.append(each),
    )
    assert told[0] == ("models", 0, 1)
    assert ("cases before", len(EASY), len(EASY)) in told
    assert ("cases after", len(EASY), len(EASY)) in told


def test_a_copy_has_what_the_card_lists_and_nothing_else(tmp_path: Path) -> None:
    folder = make(tmp_path / "largest")
    (folder / "certificate.json").write_text("{}")
    (folder / ".hidden").write_text("hidden")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "code.pyc").write_bytes(b"code")
    ran: list[str] = []
    packed = pack(folder, tmp_path / "deep" / "out", before_code=lambda: ran.append("code"))
    assert packed.accepted
    assert packed.models == ()
    assert ran == []
    copied = contents(tmp_path / "deep" / "out")
    assert sorted(copied) == ["README.md", "cases.jsonl", "code.py", "model.onnx", "specialist.toml"]
    assert copied == {name: data for name, data in contents(folder).items() if name in copied}


def test_what_cannot_be_packed_is_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "largest")
    (tmp_path / "there").mkdir()
    with pytest.raises(ScaffoldError, match="is there already; choose another folder with --out"):
        pack(folder, tmp_path / "there")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        with pytest.raises(MissingRuntime, match=r"package onnx.*brain-specialists\[pack\]"):
            pack(folder, tmp_path / "out", quantize="int8", trust=True)
    (folder / "code.py").write_text(CODE + "\n")
    with pytest.raises(ModelRejected, match=r"'code.py' is not the file the card names"):
        pack(folder, tmp_path / "out")
    seal(folder)
    (folder / "cases.jsonl").unlink()
    seal(folder)
    with pytest.raises(CasesError, match=r"has no cases.jsonl.*--cases"):
        pack(folder, tmp_path / "out", quantize="int8", trust=True)
    (folder / "cases.jsonl").write_text(json.dumps(EASY[0]) + "\n")
    (folder / "model.onnx").write_bytes(b"no model")
    seal(folder)
    with pytest.raises(ModelRejected, match=r"model.onnx is not a model that can be opened"):
        pack(folder, tmp_path / "out", quantize="int8", trust=True)
    (folder / "model.onnx").unlink()
    seal(folder)
    with pytest.raises(CardError, match=r"has no .onnx file"):
        pack(folder, tmp_path / "out", quantize="int8", trust=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["largest", "there"]


def test_no_model_is_opened_and_no_code_is_run_of_a_folder_that_nobody_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    coded, task = with_code(tmp_path / "doubler"), of_task(tmp_path / "mood")
    for folder in (coded, task):
        with pytest.raises(UntrustedFolder, match="trust=True"):
            pack(folder, tmp_path / "out", quantize="int8")
        assert pack(folder, tmp_path / f"{folder.name}-copy").accepted
    assert not (tmp_path / "canary").exists()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["specialists", "pack", "mood", "--quantize", "int8"]) == 2
    assert "look at it, then pass trust=True (--trust" in capsys.readouterr().err
    assert cli.main(["specialists", "pack", "mood", "--quantize", "int8", "--trust"]) == 1
    told = capsys.readouterr()
    assert "refused: nothing was quantised" in told.out
    assert "running the Python code" not in told.err
    assert not (tmp_path / "out").exists()


def test_a_model_that_would_not_be_loaded_is_not_opened_to_be_quantised(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    node = helper.make_node("Anything", ["x"], ["y"], domain="their.own")
    graph = helper.make_graph([node], "graph", [x], [y])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("their.own", 1)]).SerializeToString()
    with pytest.raises(ModelRejected, match=r"their\.own"):
        quantize_model(data)


def test_a_precision_that_nobody_knows_is_no_card(tmp_path: Path) -> None:
    folder = make(tmp_path / "largest")
    card = folder / "specialist.toml"
    card.write_text(card.read_text().replace("format = 1\n", 'format = 1\nprecision = "int3"\n'))
    with pytest.raises(CardError, match="precision"):
        read_card(folder)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "largest", cases=[*EASY, CLOSE])
    monkeypatch.chdir(tmp_path)
    assert cli.main(["specialists", "pack", "largest", "--quantize", "int8"]) == 1
    told = capsys.readouterr()
    assert "refused: with int8 weights 10.00% of 10 cases are lost" in told.out
    assert "CPU ms of one question" in told.out
    assert "running the Python code in ./largest" in told.err
    assert cli.main(["specialists", "pack", "largest", "--quantize", "int8", "--max-loss", "0.2", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["accepted"] is True
    assert data["folder"] == str(tmp_path / "largest-int8")
    assert data["models"][0]["nodes"] == 1
    assert (data["loss"], data["max_loss"]) == (0.1, 0.2)
    assert data["after"]["correct"] == len(EASY)
    assert cli.main(["specialists", "pack", "./largest"]) == 0
    told = capsys.readouterr()
    assert "largest-packed: largest, sealed, 3 files" in told.out
    assert told.err == "", "no code was run"
    assert cli.main(["specialists", "pack", "./largest"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert cli.main(["specialists", "pack", "./largest", "--max-loss", "2"]) == 2
    assert "'2' is not a share from 0 to 1" in capsys.readouterr().err

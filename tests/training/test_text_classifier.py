"""``brain specialists train text-classifier`` from end to end: what is made, how it stops, and how it goes on."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brain import cli
from specialists import CardError, ModelRejected, SpecialistError, load, read_card
from specialists.checking import check
from specialists.evaluation import evaluate
from specialists.training.text_classifier import Settings, train
from specialists.training.text_watch import Stopped, Watch

from ..specialists.encoders import encoder

WORDS = {
    "weather": ["rain", "sun", "cloud", "storm", "wind", "snow", "fog", "ice"],
    "money": ["pay", "bank", "cash", "loan", "coin", "debt", "card", "bill"],
    "food": ["soup", "rice", "bread", "egg", "tea", "milk", "meat", "fish"],
}
FRAMES = ["please tell me about {} {}", "what of {} and {}", "i want {} with {}", "is {} like {}", "{} {}"]


def rows(count: int, seed: int = 0, labels: Sequence[str] = tuple(WORDS)) -> list[tuple[str, str]]:
    chance = random.Random(seed)
    made = []
    for n in range(count):
        label = labels[n % len(labels)]
        made.append((label, chance.choice(FRAMES).format(*chance.choices(WORDS[label], k=2)) + f" {n * 7919 % 1000}x"))
    return made


def save(path: Path, made: Sequence[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{label}\t{text}\n" for label, text in made), "utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder made from 300 rows, 30 of them out of scope."""
    place = tmp_path_factory.mktemp("made")
    pairs = zip("abcdef" * 5, "uvwxyz" * 5, strict=True)
    strange = [("none", f"the {a} of {b} was {n}y") for n, (a, b) in enumerate(pairs)]
    train(
        Settings(
            data=save(place / "my messages.tsv", [*rows(300), *strange]),
            out=place / "Topics 1",
            out_of_scope="none",
            epochs=12,
            description="What it is about | said shortly.",
            text="A message.",
            license="mine",
        )
    )
    return place / "Topics 1"


def test_the_folder_is_a_specialist_without_code(made: Path) -> None:
    card = read_card(made)
    assert (card.name, card.task, card.license) == ("topics_1", "text-classification", "mine")
    assert sorted(card.files) == ["cases.jsonl", "curve.svg", "labels.txt", "model.onnx"]
    assert card.command == (
        "brain specialists train text-classifier --data 'my messages.tsv' --out 'Topics 1' --out-of-scope none"
        " --seed 0 --epochs 12"
    )
    assert str(made.parent) not in "".join(each.read_text("utf-8") for each in made.iterdir() if each.suffix != ".onnx")
    figures = {each.what: each for each in card.measured}
    assert figures["in_scope_accuracy"].value > 0.9
    assert figures["in_scope_accuracy"].n == 47  # texts with the same words are kept together
    assert figures["abstained_out_of_scope"].n in (4, 5, 6)
    assert "held out by chance" in str(figures["in_scope_accuracy"].on)
    assert not (made / ".training").exists()
    readme = (made / "README.md").read_text("utf-8")
    assert "![" in readme
    assert "47 texts are few" in readme


@pytest.mark.parametrize("trust", [False, True])
def test_it_passes_check_and_eval(made: Path, trust: bool) -> None:
    report = check(made, trust=trust)
    assert report.passed, report.to_json()
    fresh = [{"input": {"text": text}, "expected": {"label": label}} for label, text in rows(60, seed=9)]
    result = evaluate(load(made, trust=True), fresh)
    assert result.in_scope_accuracy is not None
    assert result.in_scope_accuracy > 0.9


def test_the_command_shows_what_it_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = save(tmp_path / "a.tsv", rows(120))
    test = save(tmp_path / "b.tsv", [*rows(30, seed=5), ("oos", "who was napoleon")])
    words = ["specialists", "train", "text-classifier", "--data", str(data), "--test", str(test), "--epochs", "3"]
    assert cli.main([*words, "--out", str(tmp_path / "one")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "epoch 1/3: loss" in out
    assert "on b.tsv" in out
    assert "brain specialists try" in out
    assert cli.main([*words, "--out", str(tmp_path / "two"), "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["name"], told["passed"], told["measured"]["n"], len(told["epochs"])) == ("two", True, 31, 3)
    assert "epoch 1/3" in err
    assert (tmp_path / "one" / "model.onnx").read_bytes() == (tmp_path / "two" / "model.onnx").read_bytes()


def stopping_at(what: str, number: int) -> Watch:
    """A watch that says stop at the so many-th step of what is so called."""
    seen = []

    def step(said: str, done: int, of: int) -> None:
        if said.startswith(what):
            seen.append(said)
            if len(seen) == number:
                watch.stop = signal.SIGTERM

    watch = Watch(step=step)
    return watch


@pytest.mark.parametrize("what", ["reading texts", "epoch 1/", "epoch 3/", "measuring"])
def test_a_stopped_run_goes_on_and_comes_to_the_same(tmp_path: Path, what: str) -> None:
    data = save(tmp_path / "a.tsv", rows(240))
    whole = train(Settings(data=data, out=tmp_path / "whole", epochs=4, seed=3))
    parted = Settings(data=data, out=tmp_path / "parted", epochs=4, seed=3)
    with pytest.raises(Stopped) as stopped:
        train(parted, watch=stopping_at(what, 3 if what.startswith("epoch") else 1))
    assert stopped.value.signal == signal.SIGTERM
    with pytest.raises(SpecialistError, match="--resume goes on, --force begins anew"):
        train(parted)
    lines: list[str] = []
    again = train(parted, resume=True, watch=Watch(say=lines.append))
    assert any("checkpoint" in line for line in lines)
    assert (tmp_path / "parted" / "model.onnx").read_bytes() == (tmp_path / "whole" / "model.onnx").read_bytes()
    assert again.measured == whole.measured
    assert not (tmp_path / "parted" / ".training").exists()
    with pytest.raises(SpecialistError, match="holds a specialist already"):
        train(parted, resume=True)


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    data = save(tmp_path / "a.tsv", rows(240))
    settings = Settings(data=data, out=tmp_path / "one", epochs=4)
    with pytest.raises(Stopped):
        train(settings, watch=stopping_at("epoch 2/", 1))
    save(data, rows(250))
    with pytest.raises(SpecialistError, match="is of other data or other settings; give the same"):
        train(settings, resume=True)
    (tmp_path / "one" / ".training" / "checkpoint.pt").write_bytes(b"no")
    with pytest.raises(SpecialistError, match="cannot be read; begin anew with --force"):
        train(settings, resume=True)
    assert train(settings, force=True).passed


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_a_checkpoint(tmp_path: Path, number: int) -> None:
    save(tmp_path / "a.tsv", rows(600))
    command = [sys.executable, "-m", "brain.cli", "specialists", "train", "text-classifier", "--data", "a.tsv"]
    command += ["--out", "made", "--epochs", "12"]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("epoch 2/"):
            break
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert child.returncode == -9
    else:
        assert child.returncode == 128 + number
        assert err.count("\n") == 1
        assert "--data a.tsv --out made --seed 0 --epochs 12 --resume`" in err
    assert (tmp_path / "made" / ".training" / "checkpoint.pt").is_file()
    with pytest.raises(CardError):
        read_card(tmp_path / "made")
    ended = subprocess.run(
        [*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "goes on from the checkpoint in epoch" in ended.stdout
    assert "epoch 1/12" not in ended.stdout


def test_time_that_is_over_ends_it_with_what_there_is(tmp_path: Path) -> None:
    data = save(tmp_path / "a.tsv", rows(240))
    begun = time.monotonic()
    made = train(Settings(data=data, out=tmp_path / "one", minutes=1e-4))
    assert len(made.epochs) == 1
    assert time.monotonic() - begun < 60


def test_files_of_ones_own_choose_and_measure(tmp_path: Path) -> None:
    data = save(tmp_path / "a.tsv", rows(120))
    val, test = save(tmp_path / "v.tsv", rows(30, seed=1)), save(tmp_path / "t.tsv", [*rows(40, seed=2), rows(120)[0]])
    made = train(Settings(data=data, validation=val, test=test, out=tmp_path / "one", epochs=4))
    assert (made.chosen, made.measured_on) == (30, "t.tsv")
    assert made.fitted < 120
    assert made.measured is not None
    assert made.measured.n == 41
    assert any("rows have the words of a text in v.tsv and t.tsv" in note for note in made.notes)
    save(test, [("money", "pay"), ("weather", "rain"), ("art", "a painting")])
    with pytest.raises(SpecialistError, match=r"t\.tsv, line 3: the label 'art' is not among those of --data"):
        train(Settings(data=data, test=test, out=tmp_path / "two"))
    assert not (tmp_path / "two").exists()


def test_two_labels_of_which_one_is_rare(tmp_path: Path) -> None:
    rare = [("food", text) for label, text in rows(60) if label == "food"]
    usual = [("money", text) for label, text in rows(1200, seed=4) if label == "money"]
    made = train(Settings(data=save(tmp_path / "a.tsv", [*usual, *rare]), out=tmp_path / "one", epochs=15))
    assert made.measured is not None
    assert made.measured.accuracy_of_each_label > 0.9
    assert made.passed


def test_ones_own_cases_take_the_place_of_held_out_texts(tmp_path: Path) -> None:
    data, cases = save(tmp_path / "a.tsv", rows(120)), tmp_path / "own.jsonl"
    cases.write_text('{"input": {"text": "rain and snow"}, "expected": {"label": "weather"}}\n', "utf-8")
    train(Settings(data=data, out=tmp_path / "one", cases=cases, epochs=20))
    assert (tmp_path / "one" / "cases.jsonl").read_text("utf-8") == cases.read_text("utf-8")


# With a sentence encoder.


@pytest.mark.parametrize("types", [True, False])
@pytest.mark.parametrize("dtype", [7, 6])  # int64, int32
def test_a_head_over_an_encoder_is_one_model(tmp_path: Path, types: bool, dtype: int) -> None:
    words = sorted({word for _, text in rows(300) for word in text.split() if word.isalpha()})
    place = encoder(tmp_path / "tiny", words, types=types, dtype=dtype)
    data = save(tmp_path / "a.tsv", rows(300))
    made = train(Settings(data=data, out=tmp_path / "one", encoder=place))
    assert made.passed, made.problems
    assert made.measured is not None
    assert made.measured.in_scope_accuracy > 0.9
    card = read_card(tmp_path / "one")
    assert card.text_classification is not None
    assert (card.text_classification.features, card.text_classification.max_tokens) == ("tokenizer", 64)
    assert sorted(card.files) == ["cases.jsonl", "curve.svg", "labels.txt", "model.onnx", "tokenizer.json"]
    assert check(tmp_path / "one").passed
    s = load(tmp_path / "one", trust=True)
    assert s.solve_sync("is rain like snow").value.label == "weather"
    assert "tiny, sha256" in (tmp_path / "one" / "README.md").read_text("utf-8")


def test_an_encoder_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    place = encoder(tmp_path / "tiny", [word for own in WORDS.values() for word in own])
    data = save(tmp_path / "a.tsv", rows(240))
    train(Settings(data=data, out=tmp_path / "whole", encoder=place, epochs=3))
    for what in ("reading texts with", "epoch 2/"):
        settings = Settings(data=data, out=tmp_path / what[:5], encoder=place, epochs=3)
        with pytest.raises(Stopped):
            train(settings, watch=stopping_at(what, 3))
        assert train(settings, resume=True).passed
        assert (settings.out / "model.onnx").read_bytes() == (tmp_path / "whole" / "model.onnx").read_bytes()


def test_what_is_no_encoder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = save(tmp_path / "a.tsv", rows(60))

    def refused(place: Path, says: str) -> None:
        with pytest.raises((CardError, ModelRejected), match=says) as caught:
            train(Settings(data=data, out=tmp_path / "one", encoder=place))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "one").exists()

    refused(tmp_path, "has no model.onnx")
    place = encoder(tmp_path / "no_tokenizer", ["a"])
    (place / "tokenizer.json").unlink()
    refused(place, "has no tokenizer.json and no vocab.txt")
    place = encoder(tmp_path / "broken", ["a"])
    (place / "tokenizer.json").write_text("{}")
    refused(place, "is not a tokenizer that can be read")
    (place / "model.onnx").write_bytes(b"nonsense")
    refused(place, "is not a model that can be opened")
    place = encoder(tmp_path / "outside", ["a", "b"])
    import onnx

    model = onnx.load(place / "model.onnx")
    onnx.save(model, place / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    refused(place, "weights|other file|external")


def test_a_vocabulary_of_a_bert_will_do(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(word for own in WORDS.values() for word in own)]
    place = encoder(tmp_path / "tiny", words)
    (place / "tokenizer.json").unlink()
    (place / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    data = save(tmp_path / "a.tsv", rows(120))
    assert train(Settings(data=data, out=tmp_path / "one", encoder=place, epochs=10)).passed


def test_the_graph_gives_what_the_network_gives(tmp_path: Path) -> None:
    """The exported file against PyTorch, on the same texts."""
    import torch

    from specialists import OnnxModel
    from specialists.texts import KINDS, encode
    from specialists.training.text_graph import build
    from specialists.training.text_network import NgramNetwork, Vocabulary, hashed

    texts = [text for _, text in rows(200)] + ["", "nothing known", "rain " * 300, "你好", "a"]
    torch.manual_seed(0)
    vocabulary = Vocabulary(hashed(texts[:150], lambda done, of: None))
    network = NgramNetwork(vocabulary, 7).eval()
    features = vocabulary.rows(hashed(texts, lambda done, of: None))
    with torch.no_grad():
        wanted = (network(features.take(torch.arange(len(texts)))) / 0.5).softmax(1).numpy()
    (tmp_path / "model.onnx").write_bytes(build(network.weights(0.5), KINDS).SerializeToString())
    model = OnnxModel(tmp_path / "model.onnx")
    found: Any = np.concatenate([model.run_sync(**encode([text]))["probabilities"] for text in texts])
    found[texts.index("")] = wanted[texts.index("")]  # the graph knows that nothing was found; the network does not
    found[texts.index("你好")] = wanted[texts.index("你好")]
    assert np.abs(found - wanted).max() < 0.02  # embeddings of one byte

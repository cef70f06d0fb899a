"""Which operators and versions are loaded. It knows nothing of files and of how a model is written."""

from __future__ import annotations

from functools import lru_cache

from ..runtime import import_runtime

__all__ = ["DOMAINS", "MICROSOFT", "ONNX", "REFUSED", "takes_ir", "takes_opset"]

ONNX = frozenset({b"", b"ai.onnx"})
DOMAINS = ONNX | {b"ai.onnx.ml"}

MICROSOFT = frozenset(
    # What ONNX Runtime's own quantizer and graph optimizers put into ordinary models; all of it computes tensors from
    # tensors. Left out is what reads other files (EPContext), runs Python, or searches by itself (BeamSearch).
    b"Attention BiasAdd BiasGelu BiasSoftmax BiasSplitGelu ConvTransposeWithDynamicPads DequantizeLinear"
    b" DynamicQuantizeLSTM DynamicQuantizeMatMul EmbedLayerNormalization FastGelu FusedConv FusedGemm FusedMatMul"
    b" GatherBlockQuantized Gelu GroupNorm GroupQueryAttention MatMulInteger16 MatMulIntegerToFloat MatMulNBits"
    b" MultiHeadAttention NhwcFusedConv NhwcMaxPool QAttention QEmbedLayerNormalization QGemm QLinearAdd"
    b" QLinearAveragePool QLinearConcat QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul"
    b" QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere QuantizeLinear QuickGelu RelativePositionBias"
    b" RotaryEmbedding SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization Trilu".split()
)
"""Operators of the domain ``com.microsoft`` that are loaded."""

REFUSED = {b"ImageDecoder": "it decodes images of foreign formats; decode them before, and give the model numbers"}
"""Operators of ONNX's own domain that a specialist has no use for, and why."""

# What every ONNX Runtime takes that this package works with, and what version 1.32 takes, should none be installed.
_CERTAIN = {b"": 21, b"ai.onnx": 21, b"ai.onnx.ml": 4}
_KNOWN = {b"": 28, b"ai.onnx": 28, b"ai.onnx.ml": 5}
_CERTAIN_IR, _KNOWN_IR = 10, 14
_ABSURD = 1000


def takes_opset(domain: bytes, version: int) -> bool:
    """Whether the installed ONNX Runtime takes this opset; any version of a domain that is none of ONNX's own."""
    if domain not in _CERTAIN or version <= _CERTAIN[domain]:
        return True
    if version >= _ABSURD:
        return False
    answer = _runtime_takes(_CERTAIN_IR, domain, version)
    return version <= _KNOWN[domain] if answer is None else answer


def takes_ir(version: int) -> bool:
    """Whether the installed ONNX Runtime takes this version of the file format."""
    if version <= _CERTAIN_IR:
        return True
    if version >= _ABSURD:
        return False
    answer = _runtime_takes(version, b"", 17)
    return version <= _KNOWN_IR if answer is None else answer


@lru_cache(maxsize=64)
def _runtime_takes(ir_version: int, domain: bytes, version: int) -> bool | None:
    """Ask the runtime by a model of one node, which is the only way there is; ``None`` without a runtime."""
    try:
        onnxruntime = import_runtime()
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(_smallest(ir_version, domain, version), options, ["CPUExecutionProvider"])
    except Exception:
        return False
    return True


def _smallest(ir_version: int, domain: bytes, version: int) -> bytes:
    """A model that copies its input, written by hand."""
    value = b"\x0a\x01x\x12\x08\x0a\x06\x08\x01\x12\x02\x0a\x00"  # x: float32 [any]
    node = b"\x0a\x01x\x12\x01y\x22\x08Identity"
    graph = b"".join(
        bytes([tag, len(part)]) + part
        for tag, part in ((0x0A, node), (0x12, b"g"), (0x5A, value), (0x62, value.replace(b"x", b"y", 1)))
    )
    opsets = {b"": 17, domain: version}
    imports = b"".join(
        bytes([0x42, 2 + len(name) + 1 + len(_varint(number)), 0x0A, len(name)]) + name + b"\x10" + _varint(number)
        for name, number in opsets.items()
        if name != b"" or domain != b"ai.onnx"
    )
    return b"\x08" + _varint(ir_version) + bytes([0x3A, len(graph)]) + graph + imports


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7])

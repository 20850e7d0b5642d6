"""Which operators a graph's file is made of, without reading its weights.

A file is one protobuf message (protobuf.dev/programming-guides/encoding), and `onnx.load` reads all of it:
most is the field that holds the graph, which is skipped here.
"""

import os
from pathlib import Path
from typing import BinaryIO

from onnx import ModelProto, OperatorSetIdProto

OPSET_IMPORT = ModelProto.OPSET_IMPORT_FIELD_NUMBER
LENGTH_DELIMITED = 2


def opsets_of(path: Path) -> dict[str, int]:
    """The version of each operator set that the graph in `path` imports, by domain."""
    found = {}
    with path.open("rb") as file:
        while tag := _varint(file):
            # Of a field that is a number it is the number.
            size = _varint(file)
            if tag >> 3 == OPSET_IMPORT:
                imported = OperatorSetIdProto.FromString(file.read(size))
                found[imported.domain] = imported.version
            elif tag & 7 == LENGTH_DELIMITED:
                file.seek(size, os.SEEK_CUR)
    return found


def _varint(file: BinaryIO) -> int:
    """Seven bits a byte, the lowest first, until one whose eighth is not set; 0 at the end of the file."""
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            break
    return value

"""Write the structure of an IR model in few bytes: it ships, beside the weights.

OpenVINO's own text has half as many bytes as the int8 weights of a small network. What is left out
here is what reading a file computes anew, or what only shows where the model came from.
"""

from __future__ import annotations

from xml.etree import ElementTree

_DEFAULTS = {"auto_broadcast": "numpy", "auto_pad": "explicit"}
"""Attributes with the value that they have if they are not there."""
_NAMELESS = ("Const", "Convert", "FakeQuantize", "Multiply", "Add", "Reshape", "Transpose")
"""Operators whose names tell nothing, but for constants that are weights."""


def compact(text: bytes) -> bytes:
    """Return the structure of a model that ptqbench has built, without what need not be there.

    Left out are blanks, the shapes of all values but the input's (reading the file infers them),
    the types of inputs (those of the outputs that they read), names of values, notes on single
    operators, attributes with their defaults, and most names of operators, which become numbers.

    Args:
        text: As OpenVINO writes it.
    """
    root = ElementTree.fromstring(text)
    for layer in root.iterfind("layers/layer"):
        _shorten(layer)
    for element in root.iter():
        element.text, element.tail = (element.text or "").strip() or None, None
    body: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return body.replace(b" />", b"/>")


def _shorten(layer: ElementTree.Element) -> None:
    kind, name = layer.get("type", ""), layer.get("name", "")
    _drop(layer, "rt_info")
    if kind in _NAMELESS and not (kind == "Const" and ".weight" in name):
        layer.set("name", layer.get("id", ""))
    data = layer.find("data")
    if data is not None:
        for key, value in _DEFAULTS.items():
            if data.get(key) == value:
                del data.attrib[key]
        if not data.attrib:
            layer.remove(data)
    for port in layer.iterfind("input/port"):
        port.attrib.pop("precision", None)
        _drop(port, "dim", "rt_info")
    for port in layer.iterfind("output/port"):
        if kind != "Parameter":
            port.attrib.pop("names", None)
            _drop(port, "dim")
        _drop(port, "rt_info")


def _drop(element: ElementTree.Element, *tags: str) -> None:
    for child in [each for each in element if each.tag in tags]:
        element.remove(child)

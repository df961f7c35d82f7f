"""Read a program of ``torch.export`` into a graph of torch's operators, without running it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from ptqbench.backends.inductor.pt2_arguments import argument, operator_of

if TYPE_CHECKING:
    from ptqbench.backends.inductor.pt2_archive import Pt2Archive

IMAGES = "images"
"""Name of the input."""
RANK = "rank"
"""Under which nodes have the number of dimensions of their values."""
_ASSERTIONS = ("sym_constrain_range", "_assert_scalar", "_assert_tensor_metadata", "_assert_async")
"""What an exporter writes of sizes and types: without results, and true of any call that works."""


@dataclass(frozen=True)
class Program:
    """A program as it is in its file.

    Attributes:
        graph: Calls of operators; parameters are attributes.
        tensors: Weights and constants, by the name of their attribute.
        names: What the file calls them, by the name of their attribute.
        shape: Of the images that it was exported with.
    """

    graph: fx.Graph
    tensors: Mapping[str, Tensor]
    names: Mapping[str, str]
    shape: tuple[int, ...]

    def module(self) -> fx.GraphModule:
        """A module to change and to run."""
        root = nn.Module()
        for name, value in self.tensors.items():
            root.register_buffer(name, value)
        graph = fx.Graph()
        result = graph.graph_copy(self.graph, {})
        graph.output(result)
        return fx.GraphModule(root, graph)


def read_program(archive: Pt2Archive) -> Program:
    """Read the program in a file.

    Raises:
        UserError: It is incomplete, has several inputs or outputs, or operators of others.
    """
    module = archive.program.get("graph_module", {})
    try:
        return _Reader(archive, module["graph"], module["signature"]).read()
    except ValueError as error:
        raise archive.error(
            f"it needs {error}. ptqbench executes programs of torch's own operators on the CPU, "
            "with images as their only input and logits as their only output."
        ) from None
    except (KeyError, TypeError, AttributeError, IndexError):
        raise archive.error("its program is incomplete or damaged. Save it again.") from None


class _Reader:
    """Builds the graph of one program, from its JSON."""

    def __init__(
        self, archive: Pt2Archive, graph: Mapping[str, Any], signature: Mapping[str, Any]
    ) -> None:
        self._stored = archive.tensors()
        self._json = graph
        self._signature = signature
        self._graph = fx.Graph()
        self._values: dict[str, Any] = {}
        self._tensors: dict[str, Tensor] = {}
        self._names: dict[str, str] = {}
        self._shape: tuple[int, ...] = ()

    def read(self) -> Program:
        for spec in self._signature["input_specs"]:
            self._input(spec)
        if not self._shape:
            raise ValueError("no images")
        for node in self._json["nodes"]:
            self._call(node)
        ((kind, output),) = _only(self._signature["output_specs"], "outputs").items()
        if kind != "user_output":
            raise ValueError(f"buffers that it writes to ({kind})")
        self._graph.output(argument(output["arg"], self._values))
        return Program(self._graph, self._tensors, self._names, self._shape)

    def _input(self, spec: Mapping[str, Any]) -> None:
        """A parameter becomes an attribute, the images stay an input."""
        ((kind, content),) = spec.items()
        if kind == "user_input" and not self._shape:
            name = content["arg"]["as_tensor"]["name"]
            sizes = self._json["tensor_values"][name]["sizes"]
            self._shape = tuple(_hint(size) for size in sizes)
            self._values[name] = self._graph.placeholder(IMAGES)
            self._values[name].meta[RANK] = len(sizes)
            return
        places = {"parameter": "parameter_name", "buffer": "buffer_name"}
        places["tensor_constant"] = "tensor_constant_name"
        if kind not in places:
            raise ValueError("several inputs" if kind == "user_input" else f"an input ({kind})")
        stored, name = content[places[kind]], content["arg"]["name"]
        attribute = f"w_{len(self._tensors)}"
        self._tensors[attribute] = self._stored[stored].detach()
        self._names[attribute] = stored
        self._values[name] = self._graph.get_attr(attribute)

    def _call(self, node: Mapping[str, Any]) -> None:
        target = node["target"]
        if any(name in target for name in _ASSERTIONS):
            return
        function = operator_of(target)
        positional, keywords = [], {}
        for each in node["inputs"]:
            value = argument(each["arg"], self._values)
            # Arguments by position may not have gaps; those of operators have names anyway.
            if each.get("kind") == 2:
                keywords[each["name"]] = value
            else:
                positional.append(value)
        call = self._graph.call_function(function, tuple(positional), keywords)
        self._outputs(call, node["outputs"])

    def _outputs(self, call: fx.Node, outputs: list[Mapping[str, Any]]) -> None:
        """Name what a call returns: a tensor or a number, a list of tensors, or several."""
        names: list[str | None] = []
        single = len(outputs) == 1 and "as_tensors" not in outputs[0]
        for output in outputs:
            ((kind, content),) = output.items()
            if kind == "as_tensors":
                names += [each["name"] for each in content]
            elif kind == "as_tensor":
                names.append(content["name"])
            elif kind.startswith("as_sym_"):
                names.append(content.get("as_name"))
            elif kind == "as_none":
                names.append(None)
            else:
                raise ValueError(f"an output of the kind {kind.removeprefix('as_')}")
        if single and names[0] is not None:
            call.meta[RANK] = len(self._json["tensor_values"].get(names[0], {}).get("sizes", ()))
            self._values[names[0]] = call
            return
        for place, name in enumerate(names):
            if name is not None:
                self._values[name] = self._graph.call_function(operator.getitem, (call, place))


def _only(entries: list[Any], what: str) -> Any:
    if len(entries) != 1:
        raise ValueError(f"several {what}")
    return entries[0]


def _hint(size: Mapping[str, Any]) -> int:
    """A size as it was in the example of the export."""
    if "as_int" in size:
        return int(size["as_int"])
    return int(size["as_expr"]["hint"]["as_int"])

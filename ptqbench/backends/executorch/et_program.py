"""Read the program in a ``.pte`` file: its values, instructions, delegates and constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ptqbench.backends.executorch.et_flatbuffer import MalformedError, Table

XNNPACK = "XnnpackBackend"
_IDENTIFIER = slice(4, 8)
_HEADER = b"eh00"
"""Behind the identifier: where the segments with data begin."""
_EXTERNAL = 1
_DTYPES = {0: "<u1", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<i8", 5: "<f2", 6: "<f4", 7: "<f8", 11: "?"}
"""Types of tensors, by their number in ExecuTorch."""
_KINDS = ("", "null", "int", "bool", "double", "tensor", "string", "ints")
_KERNEL, _DELEGATE, _MOVE = 1, 2, 3
_INTEGER_LISTS = (7,)


@dataclass(frozen=True)
class Value:
    """A value of a method.

    Attributes:
        kind: ``tensor``, ``int``, ``ints``, …; empty for kinds that nothing here reads.
        shape: Of a tensor; the largest, if that is open.
        dtype: Of a tensor, as of numpy; empty if numpy has none.
        constant: Contents of a constant tensor.
        numbers: Of an integer, or of a list of them.
    """

    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    constant: np.ndarray | None = None
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Call:
    """One instruction.

    Attributes:
        operator: Name of the operator, as ``aten::add.out``; empty for a delegate.
        delegate: Number of the delegate; −1 for an operator.
        arguments: Numbers of the values that it reads and writes.
    """

    operator: str
    delegate: int
    arguments: tuple[int, ...]


@dataclass(frozen=True)
class Delegate:
    """A part of a method that a backend of ExecuTorch executes as a whole.

    Attributes:
        name: Of that backend.
        payload: What was written for it.
    """

    name: str
    payload: memoryview


@dataclass(frozen=True)
class Program:
    """A method of a file.

    Attributes:
        values: All of them.
        inputs: Numbers of those that it is called with.
        outputs: Numbers of those that it returns.
        calls: Its instructions in order.
        delegates: What they call.
        data: Named contents, which delegates refer to.
        methods: Names of all methods of the file, this one first.
        external: Names of tensors that lie in another file.
    """

    values: tuple[Value, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    calls: tuple[Call, ...]
    delegates: tuple[Delegate, ...]
    data: Mapping[str, memoryview]
    methods: tuple[str, ...]
    external: tuple[str, ...]


def read_program(content: bytes) -> Program:
    """Read the method ``forward`` of a file, or its first one.

    Raises:
        MalformedError: The file is none of ExecuTorch, or damaged; carries the reason.
    """
    file = _File(content)
    plans = file.root.tables(1)
    if not plans:
        raise MalformedError("it has no method")
    plans.sort(key=lambda plan: plan.text(0) != "forward")
    plan = plans[0]
    tensors = [value.union(0) for value in plan.tables(2)]
    values = tuple(file.value(kind, table) for kind, table in tensors)
    operators = [_name(each.text(0), each.text(1)) for each in plan.tables(6)]
    calls = [
        _call(instruction, operators) for chain in plan.tables(5) for instruction in chain.tables(2)
    ]
    for call in calls:
        if call is not None and not all(0 <= each < len(values) for each in call.arguments):
            raise MalformedError("an instruction reads what is not there")
    return Program(
        values,
        _indices(plan, 3, len(values)),
        _indices(plan, 4, len(values)),
        tuple(call for call in calls if call is not None),
        tuple(file.delegate(each) for each in plan.tables(7)),
        file.data,
        tuple(each.text(0) for each in plans),
        tuple(file.external),
    )


def _name(name: str, overload: str) -> str:
    return f"{name}.{overload}" if overload else name


def _indices(plan: Table, number: int, count: int) -> tuple[int, ...]:
    indices = tuple(map(int, plan.numbers(number, "<i4")))
    if not all(0 <= each < count for each in indices):
        raise MalformedError("a method has inputs or outputs that are not there")
    return indices


def _call(instruction: Table, operators: list[str]) -> Call | None:
    """An instruction; None for those that only move or free values, or jump."""
    kind, table = instruction.union(0)
    if table is None or kind not in (_KERNEL, _DELEGATE):
        return None
    target = table.integer(0, "i")
    arguments = tuple(map(int, table.numbers(1, "<i4")))
    if kind == _DELEGATE:
        return Call("", target, arguments)
    if not 0 <= target < len(operators):
        raise MalformedError("an instruction calls what is not there")
    return Call(operators[target], -1, arguments)


class _File:
    """The tables of a file that others refer to.

    Args:
        content: All bytes.
    """

    def __init__(self, content: bytes) -> None:
        if len(content) < 16 or content[_IDENTIFIER][:2] != b"ET":
            raise MalformedError("it is no program of ExecuTorch")
        whole = memoryview(content)
        size, base = len(content), len(content)
        if content[8:12] == _HEADER:
            if len(content) < 32:
                raise MalformedError("it ends too early")
            size, base = (int.from_bytes(content[at : at + 8], "little") for at in (16, 24))
            if size > len(content) or base > len(content):
                raise MalformedError("it ends too early")
        self._segments = whole[base:] if base else whole[len(content) :]
        self.root = Table.root(whole[:size])
        self._places = [(each.integer(0, "Q"), each.integer(1, "Q")) for each in self._tables(4)]
        for offset, length in self._places:
            if offset + length > len(self._segments):
                raise MalformedError("it ends too early")
        self.data = {each.text(0): self.segment(each.integer(1)) for each in self._tables(7)}
        self._inline = [each.content(0) for each in self._tables(3)]
        self._buffers = [each.content(0) for each in self._tables(2)]
        constants = self.root.table(5)
        self._constants = memoryview(b"")
        self._offsets = np.zeros(0, np.uint64)
        if constants is not None:
            self._offsets = constants.numbers(1, "<u8")
            if len(self._offsets):
                self._constants = self.segment(constants.integer(0))
        self.external: list[str] = []

    def _tables(self, number: int) -> list[Table]:
        return self.root.tables(number)

    def segment(self, number: int) -> memoryview:
        """The contents of a segment."""
        if number >= len(self._places):
            raise MalformedError("it refers to data that is not there")
        offset, length = self._places[number]
        return self._segments[offset : offset + length]

    def delegate(self, table: Table) -> Delegate:
        """What a backend of ExecuTorch executes."""
        reference = table.needed(1)
        place = reference.integer(1)
        if reference.integer(0, "b"):
            return Delegate(table.text(0), self.segment(place))
        if place >= len(self._inline):
            raise MalformedError("it refers to data that is not there")
        return Delegate(table.text(0), self._inline[place])

    def value(self, kind: int, table: Table | None) -> Value:
        """One value of a method."""
        name = _KINDS[kind] if kind < len(_KINDS) else ""
        if table is None:
            return Value(name)
        if name == "tensor":
            return self._tensor(table)
        if name == "int":
            return Value(name, numbers=(table.integer(0, "q"),))
        if kind in _INTEGER_LISTS:
            return Value(name, numbers=tuple(map(int, table.numbers(0, "<i8"))))
        return Value(name)

    def _tensor(self, table: Table) -> Value:
        shape = tuple(map(int, table.numbers(2, "<i4")))
        dtype = _DTYPES.get(table.integer(0, "b"), "")
        extra = table.table(9)
        if extra is not None and extra.integer(2, "b") == _EXTERNAL:
            self.external.append(extra.text(1))
        place = table.integer(5)
        if not place or table.table(6) is not None or not dtype:
            return Value("tensor", shape, dtype)
        return Value("tensor", shape, dtype, self._constant(place, shape, dtype))

    def _constant(self, place: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        if place < len(self._buffers):
            content = self._buffers[place]
        elif place < len(self._offsets):
            content = self._constants[int(self._offsets[place]) :]
        else:
            raise MalformedError("it refers to data that is not there")
        count = int(np.prod(shape, dtype=np.int64))
        if min(shape, default=0) < 0 or count * np.dtype(dtype).itemsize > len(content):
            raise MalformedError("a constant ends too early")
        return np.frombuffer(content, dtype, count).reshape(shape)

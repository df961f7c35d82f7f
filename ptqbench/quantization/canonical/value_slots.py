"""Which value of the lifted graph each value of the captured one is, in-place writes resolved.

A captured graph may write in place (``relu_``, ``add_``). As long as no other view of the same
memory is read afterwards, the new value simply takes the place of the old one; where it is,
torch itself has to make the graph functional.
"""

from __future__ import annotations

from torch.fx import Node


class WritesIntoViewError(Exception):
    """An in-place operator writes into memory that is also read through another view."""


class Values:
    """Values of a captured graph in the lifted one.

    Args:
        order: Position of every node of the captured graph, by its name.
    """

    def __init__(self, order: dict[str, int]) -> None:
        self._order = order
        self._slot: dict[str, int] = {}
        self._lifted: list[Node] = []
        self._memory: list[int] = []
        self._names: list[list[Node]] = []

    def __contains__(self, node: Node) -> bool:
        return node.name in self._slot

    def __getitem__(self, node: Node) -> Node:
        return self._lifted[self._slot[node.name]]

    def add(self, node: Node, lifted: Node, view_of: Node | None = None) -> None:
        """Record a new value, in memory of its own or in that of another value."""
        slot = len(self._lifted)
        shared = view_of is not None and view_of in self
        self._lifted.append(lifted)
        self._memory.append(self._memory[self._slot[view_of.name]] if shared and view_of else slot)
        self._names.append([node])
        self._slot[node.name] = slot

    def alias(self, node: Node, source: Node) -> None:
        """Record that a node is the very value of another one."""
        slot = self._slot[source.name]
        self._slot[node.name] = slot
        self._names[slot].append(node)

    def write(self, node: Node, target: Node, lifted: Node) -> None:
        """Record that an in-place operator has replaced a value.

        Raises:
            WritesIntoViewError: Another view of its memory is read later.
        """
        if target not in self:
            raise WritesIntoViewError(node.name)
        slot, now = self._slot[target.name], self._order[node.name]
        for other, memory in enumerate(self._memory):
            if other != slot and memory == self._memory[slot]:
                users = (user for name in self._names[other] for user in name.users)
                if any(self._order[user.name] > now for user in users):
                    raise WritesIntoViewError(node.name)
        self._lifted[slot] = lifted
        self.alias(node, target)

"""Looking things up in an ONNX graph and changing it in place."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np


class Editor:
    """A graph with its producers, consumers, constants and shapes looked up by tensor name."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self.graph = graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.producer = {name: node for node in graph.node for name in node.output if name}
        self.consumers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.consumers[name].append(node)
        self.outputs = {o.name for o in graph.output}
        self.shapes: dict[str, tuple[int | str, ...]] = {}
        for value in (*graph.value_info, *graph.input, *graph.output):
            dims = value.type.tensor_type.shape.dim
            self.shapes[value.name] = tuple(d.dim_param or int(d.dim_value) for d in dims)
        self._count = 0

    def made_by(self, name: str, operator: str) -> Any:
        """The node that makes a tensor, if it is of that operator."""
        node = self.producer.get(name)
        return node if node is not None and node.op_type == operator else None

    def only_use(self, name: str) -> bool:
        """Whether exactly one node reads the tensor, and it is no output."""
        return len(self.consumers[name]) == 1 and name not in self.outputs

    def attribute(self, node: Any, name: str) -> Any:
        """Value of an attribute, None if it is not there."""
        from onnx import helper

        return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)

    def constant(self, value: np.ndarray) -> str:
        """A new constant; returns its name. Never shared, so that graphs of other sizes have the same
        ones.
        """
        from onnx import numpy_helper

        name = self._name("constant")
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        self.constants[name] = value
        return name

    def add(self, operator: str, inputs: list[str], like: Any, output: str = "", **attributes: Any) -> str:
        """A new node that belongs to the module of the node `like`; returns the name of its output."""
        from onnx import helper

        output = output or self._name("tensor")
        node = helper.make_node(operator, inputs, [output], **attributes)
        node.metadata_props.extend(like.metadata_props)
        self.graph.node.append(node)
        self.producer[output] = node
        for name in inputs:
            self.consumers[name].append(node)
        return output

    def remove(self, nodes: Iterable[Any]) -> None:
        """Take nodes out of the graph; nothing may read their outputs any more, or others must make them."""
        gone = {id(node) for node in nodes}
        kept = [node for node in self.graph.node if id(node) not in gone]
        copies = [type(node).FromString(node.SerializeToString()) for node in kept]
        del self.graph.node[:]
        self.graph.node.extend(copies)

    def _name(self, kind: str) -> str:
        taken = self.producer.keys() | self.constants.keys()
        while f"rewrite_{kind}_{self._count}" in taken:
            self._count += 1
        return f"rewrite_{kind}_{self._count}"

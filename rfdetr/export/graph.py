"""The deployed graph of a sub-network, traced by the exporter and cleaned: names, constants, cuts.

Everything here works on the graph only; files, checks and metadata are in `export`.
"""

import ast
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rfdetr.export.rewrite import rewrite
from rfdetr.model.decoder import decode_boxes
from rfdetr.model.detector import SubNet
from rfdetr.model.outputs import Prediction

if TYPE_CHECKING:
    import onnx

# Native opset of PyTorch's ONNX functions; lower ones are converted from it.
OPSET = 18
_ANY_SIZE = 2**40


def _should_fold(node: Any) -> bool | None:
    # The rounding of a folded product depends on the number of its rows, and `between` compares rows exactly.
    # Runtimes fold these few products when they load the graph.
    return False if node.op_type in ("MatMul", "Gemm", "Einsum") else None


class DeployedGraph(nn.Module):
    """A sub-network as it is deployed: images -> logits, boxes and masks of each depth in `depths`,
    flattened.

    The same calls as `RFDETR.decode`, but the heads run on one layer at a time, so that a graph with several
    depths can be cut to one of them and is then what that depth alone would give.
    """

    def __init__(self, subnet: SubNet, depths: Sequence[int]) -> None:
        super().__init__()
        self.network = subnet.network
        self.arch = subnet.arch
        self.depths = tuple(depths)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, R, R] -> (logits, boxes[, masks]) of the first depth, of the second, ..."""
        net, arch = self.network, self.arch
        memory = net.encode(images, arch)
        features, logits, boxes = net.selection(memory, arch.queries, 1)
        hidden: list[Tensor] = []
        if max(self.depths):
            kept = boxes.shape[1]
            reference = decode_boxes(net.reference_deltas[:1, :kept].flatten(0, 1), boxes)
            content = net.query_features[:1, :kept].flatten(0, 1).expand(images.shape[0], -1, -1)
            hidden = net.decoder(content, reference, memory, max(self.depths), 1)
        mask_map = None
        maps: list[Tensor] = []
        if net.mask_head is not None:
            mask_map = net.mask_head.resize(memory.permute(0, 3, 1, 2), arch.resolution)
            for block in net.mask_head.blocks[: max(self.depths)]:
                maps.append(block(maps[-1] if maps else mask_map))
        outputs: list[Tensor] = []
        for depth in self.depths:
            if depth == 0:
                prediction = Prediction(logits, boxes)
            else:
                x = hidden[depth - 1]
                prediction = Prediction(net.class_head(x), decode_boxes(net.box_head(x), reference))
            if net.mask_head is not None and mask_map is not None:
                pixels = net.mask_head.embed_pixels(maps[depth - 1]) if depth else mask_map
                net.mask_head.add_masks(prediction, pixels, hidden[depth - 1] if depth else features)
            outputs += [prediction.logits, prediction.boxes]
            if prediction.masks is not None:
                outputs.append(prediction.masks)
        return tuple(outputs)


def output_names(segmentation: bool) -> list[str]:
    """Names of the outputs of one depth."""
    return ["logits", "boxes", "masks"] if segmentation else ["logits", "boxes"]


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """No messages of the exporter about packages that this project does not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    registration_level = registration.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        registration.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
            registration.setLevel(registration_level)


def trace(
    subnet: SubNet, depths: Sequence[int], opset: int = OPSET, dynamic_batch: bool = False, batch: int = 1
) -> "onnx.ModelProto":
    """Trace a sub-network into a graph with the outputs of every depth, named `logits_<depth>` and so on.

    Constants are folded (weights are stored as the operators read them) and everything that points to source
    files is removed. The exporter's own optimiser takes longer than the tracing; runtimes do its work when
    they load.
    """
    import onnx_ir as ir
    from onnx_ir.passes import common
    from onnxscript import optimizer

    module = DeployedGraph(subnet, depths)
    side = subnet.arch.resolution
    # A batch of one would be specialised: dynamic shapes are traced with two.
    images = torch.zeros(2 if dynamic_batch else batch, 3, side, side)
    names = [f"{n}_{d}" for d in depths for n in output_names(subnet.config.segmentation)]
    shapes: Any = {"images": {0: torch.export.Dim("batch", min=1)}} if dynamic_batch else None
    with quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (images,),
            dynamo=True,
            opset_version=opset,
            input_names=["images"],
            output_names=names,
            dynamic_shapes=shapes,
            optimize=False,
            verbose=False,
        )
        assert program is not None
        model = program.model
        common.InlinePass()(model)
        optimizer.fold_constants(
            model,
            onnx_shape_inference=True,
            input_size_limit=_ANY_SIZE,
            output_size_limit=_ANY_SIZE,
            should_fold=_should_fold,
        )
        for step in (
            common.RemoveUnusedNodesPass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.RemoveUnusedFunctionsPass(),
            common.RemoveUnusedOpsetsPass(),
            common.OutputFixPass(),
        ):
            step(model)
        proto: onnx.ModelProto = ir.to_proto(model)
    rewrite(proto.graph)
    for node in proto.graph.node:
        node.name = _scope(node)
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.value_info[:]
    for holder in (proto.graph.initializer, proto.graph.input, proto.graph.output):
        for item in holder:
            del item.metadata_props[:]
            item.doc_string = ""
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]
    proto.graph.name = "rfdetr"
    proto.graph.doc_string = proto.doc_string = ""
    return proto


def _scope(node: Any) -> str:
    """The module that a node was traced from, e.g. `backbone.blocks.0.norm1`."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = [s for s in ast.literal_eval(entry.value)[:-1] if s]
            return scopes[-1].removeprefix("network").removeprefix(".") if scopes else ""
    return ""


def cut(model: "onnx.ModelProto", depth: int) -> "onnx.ModelProto":
    """The graph of one depth only: its outputs lose their suffix, whatever they do not need is dropped.

    Nodes and tensors get names from the module that they come from, so that they can be read and do not
    depend on how the graph was obtained: cutting a graph of many depths and tracing one depth give the same
    bytes.
    """
    import onnx

    suffix = f"_{depth}"
    model = _merged(_pruned(model, [o for o in model.graph.output if o.name.endswith(suffix)]))
    graph = model.graph
    nodes = in_order_of_use(graph, [o.name for o in graph.output])

    result = onnx.ModelProto()
    result.CopyFrom(_shell(model))
    renamed = {v.name: v.name for v in graph.input}
    outer = {o.name: o.name.removesuffix(suffix) for o in graph.output}
    initializers = {t.name: t for t in graph.initializer}
    counts: Counter[str] = Counter()
    for node in nodes:
        copy = result.graph.node.add()
        copy.CopyFrom(node)
        label = f"{node.name}/{node.op_type}".lstrip("/")
        copy.name = f"{label}_{counts[label]}" if counts[label] else label
        counts[label] += 1
        for index, name in enumerate(node.input):
            if name and name not in renamed:
                constant = result.graph.initializer.add()
                constant.CopyFrom(initializers[name])
                constant.name = renamed[name] = f"{copy.name}:{index}"
            copy.input[index] = renamed.get(name, "")
        for index, name in enumerate(node.output):
            if name:
                extra = f".{index}" if len(node.output) > 1 else ""
                renamed[name] = outer.get(name, f"{copy.name}.out{extra}")
            copy.output[index] = renamed.get(name, "")
    result.graph.input.extend(graph.input)
    for output in graph.output:
        copied = result.graph.output.add()
        copied.CopyFrom(output)
        copied.name = outer[output.name]
    return result


def _pruned(model: "onnx.ModelProto", outputs: list[Any]) -> "onnx.ModelProto":
    """The part of a graph that some of its outputs need."""
    result = _shell(model)
    result.graph.node.extend(in_order_of_use(model.graph, [o.name for o in outputs]))
    used = {name for node in result.graph.node for name in node.input}
    result.graph.initializer.extend(t for t in model.graph.initializer if t.name in used)
    result.graph.input.extend(model.graph.input)
    result.graph.output.extend(outputs)
    return result


def _merged(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Equal constants and equal computations once.

    Only now, because two constants that are equal by chance would keep `between` from comparing two graphs.
    """
    import onnx_ir as ir
    from onnx_ir.passes import common

    merged = ir.from_proto(model)
    common.DeduplicateInitializersPass(size_limit=_ANY_SIZE)(merged)
    common.CommonSubexpressionEliminationPass()(merged)
    common.RemoveUnusedNodesPass()(merged)
    return ir.to_proto(merged)


def in_order_of_use(graph: Any, names: list[str]) -> list[Any]:
    """The nodes that the tensors `names` need, each after its inputs; the order depends on the graph
    alone.
    """
    producer = {name: node for node in graph.node for name in node.output if name}
    ordered: list[Any] = []
    seen: set[int] = set()
    stack = [(producer[name], False) for name in reversed(names)]
    while stack:
        node, complete = stack.pop()
        if complete:
            ordered.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack += [(producer[name], False) for name in reversed(node.input) if name in producer]
    return ordered


def _shell(model: "onnx.ModelProto") -> "onnx.ModelProto":
    import onnx

    shell = onnx.ModelProto()
    shell.ir_version = model.ir_version
    shell.opset_import.extend(sorted(model.opset_import, key=lambda o: o.domain))
    shell.producer_name = "rfdetr"
    shell.graph.name = model.graph.name
    return shell

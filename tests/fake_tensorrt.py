"""TensorRT as far as `rfdetr.benchmark.runtimes` calls it, on the CPU, over the CUDA of `fake_cuda`.

Passes are computed by ONNX Runtime. Unknown names raise AttributeError, as they would there.
"""

import enum
import importlib.machinery
import json
import sys
import types

import numpy as np
import onnx
import onnxruntime
from fake_cuda import Device, cuda_module, nvml_module


class Flags(enum.IntEnum):
    FP16, INT8, TF32, OBEY_PRECISION_CONSTRAINTS = range(4)


class Creation(enum.IntEnum):
    EXPLICIT_BATCH = 0


class TypedCreation(enum.IntEnum):
    EXPLICIT_BATCH, STRONGLY_TYPED = range(2)


class TacticSource(enum.IntEnum):
    CUBLAS, CUBLAS_LT, CUDNN, EDGE_MASK_CONVOLUTIONS, JIT_CONVOLUTIONS = range(5)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class Memory(bytes):
    """`IHostMemory`: read through the buffer protocol."""


class Layer:
    def __init__(self, node) -> None:
        self.name, self.num_outputs, self.precision = node.name, len(node.output), None
        self.types = {}

    def set_output_type(self, index, dtype) -> None:
        assert index < self.num_outputs
        self.types[index] = dtype


class Logger:
    VERBOSE, INFO, WARNING, ERROR = range(4)

    def __init__(self, severity) -> None:
        assert severity in range(4)


def tensorrt_module(gpu: Device, version: str = "10.4.0", refuses_fp16: bool = False) -> types.ModuleType:
    trt = types.ModuleType("tensorrt")
    trt.__version__, trt.Logger, trt.BuilderFlag, trt.TensorIOMode = version, Logger, Flags, TensorIOMode
    trt.NetworkDefinitionCreationFlag = Creation if version.startswith("8") else TypedCreation
    trt.TacticSource = TacticSource
    trt.MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE DLA_MANAGED_SRAM")
    trt.ProfilingVerbosity = enum.Enum("ProfilingVerbosity", "LAYER_NAMES_ONLY NONE DETAILED")
    trt.LayerInformationFormat = enum.Enum("LayerInformationFormat", "ONELINE JSON")
    trt.float32, trt.float16 = "float32", "float16"
    trt.nptype = lambda dtype: np.dtype(dtype).type
    state = trt.state = types.SimpleNamespace(configs=[], networks=[])

    class Builder:
        def __init__(self, logger) -> None:
            assert isinstance(logger, Logger)

        def create_network(self, flags):
            network = types.SimpleNamespace(flags=flags, onnx=None, layers=[], num_layers=0)
            network.get_layer = lambda index: network.layers[index]
            state.networks.append(network)
            return network

        def create_builder_config(self):
            state.configs.append(Config())
            return state.configs[-1]

        def create_optimization_profile(self):
            profile = types.SimpleNamespace(shapes={})
            profile.set_shape = lambda name, low, usual, high: profile.shapes.update(
                {name: (low, usual, high)}
            )
            return profile

        def build_serialized_network(self, network, config):
            if config.workspace < 1 << 20:
                return None
            detailed = config.profiling_verbosity is trt.ProfilingVerbosity.DETAILED
            typed = not version.startswith("8") and network.flags >> int(TypedCreation.STRONGLY_TYPED) & 1
            fp16 = (typed or Flags.FP16 in config.flags) and not refuses_fp16
            layers = []
            for layer, node in zip(network.layers, network.onnx.graph.node, strict=True):
                whole = node.op_type in ("TopK", "Shape") and len(layers) % 2
                kind = "FP32" if layer.precision == trt.float32 or not fp16 else "FP16"
                text = "Row major Int32 format" if whole else f"Row major linear {kind} format"
                entry = {"Name": layer.name, "Outputs": [{"Name": "t", "Format/Datatype": text}]}
                layers.append(entry if detailed else layer.name)
            header = json.dumps({"version": version, "layers": layers}).encode()
            body = network.onnx.SerializeToString()
            return Memory(len(header).to_bytes(8, "little") + header + body)

    class Config:
        def __init__(self) -> None:
            self.flags, self.workspace, self.profiles = {Flags.TF32}, 0, []
            self.profiling_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
            self.cache = self.tactics = None

        def set_flag(self, flag) -> None:
            self.flags.add(Flags(flag))

        def clear_flag(self, flag) -> None:
            self.flags.discard(Flags(flag))

        def set_memory_pool_limit(self, pool, size) -> None:
            assert pool is trt.MemoryPoolType.WORKSPACE
            self.workspace = size

        def set_tactic_sources(self, mask) -> bool:
            self.tactics = mask
            return True

        def add_optimization_profile(self, profile) -> int:
            self.profiles.append(profile)
            return len(self.profiles) - 1

        def create_timing_cache(self, content):
            assert isinstance(content, bytes)
            return types.SimpleNamespace(serialize=lambda: Memory(content + b"timing"), content=content)

        def set_timing_cache(self, cache, ignore_mismatch) -> bool:
            self.cache = cache
            return True

    class OnnxParser:
        def __init__(self, network, logger) -> None:
            self.network, self.num_errors = network, 0

        def parse(self, content: bytes) -> bool:
            try:
                self.network.onnx = onnx.load_from_string(content)
            except Exception:
                self.num_errors = 1
                return False
            self.network.layers = [Layer(n) for n in self.network.onnx.graph.node]
            self.network.num_layers = len(self.network.layers)
            return True

        def get_error(self, index):
            return types.SimpleNamespace(desc=lambda: "not a graph")

    class Runtime:
        def __init__(self, logger) -> None:
            assert isinstance(logger, Logger)

        def deserialize_cuda_engine(self, content: bytes):
            size = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + size])
            return Engine(header, content[8 + size :]) if header["version"] == version else None

    class Engine:
        def __init__(self, header, content) -> None:
            self._layers, self._session = header["layers"], onnxruntime.InferenceSession(content)
            self._inputs = {t.name: t for t in self._session.get_inputs()}
            self._outputs = {t.name: t for t in self._session.get_outputs()}
            self._all = {**self._inputs, **self._outputs}
            self.num_io_tensors = len(self._all)

        def get_tensor_name(self, index):
            return list(self._all)[index]

        def get_tensor_mode(self, name):
            return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name):
            return {"tensor(float)": "float32"}[self._all[name].type]

        def create_execution_context(self):
            return Context(self)

        def create_engine_inspector(self):
            information = json.dumps({"Layers": self._layers, "Bindings": list(self._all)})
            return types.SimpleNamespace(get_engine_information=lambda kind: information)

    class Context:
        def __init__(self, engine) -> None:
            self.engine, self.shapes, self.addresses = engine, {}, {}

        def set_input_shape(self, name, shape) -> bool:
            wanted = self.engine._inputs[name].shape
            fits = len(wanted) == len(shape) and all(
                isinstance(w, str) or w == s for w, s in zip(wanted, shape, strict=True)
            )
            self.shapes[name] = tuple(shape) if fits else None
            return fits

        def get_tensor_shape(self, name):
            batch = self.shapes["images"][0]
            return tuple(batch if isinstance(d, str) else d for d in self.engine._all[name].shape)

        def set_tensor_address(self, name, address) -> bool:
            assert isinstance(address, int)
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream: int) -> bool:
            assert type(stream) is int
            if set(self.addresses) != set(self.engine._all):
                return False
            addresses, shapes = dict(self.addresses), dict(self.shapes)

            def work():
                feed = {
                    n: np.frombuffer(bytes(gpu.memory[addresses[n]]), np.float32)[: int(np.prod(s))].reshape(
                        s
                    )
                    for n, s in shapes.items()
                }
                names = list(self.engine._outputs)
                for name, value in zip(names, self.engine._session.run(names, feed), strict=True):
                    content = np.ascontiguousarray(value).tobytes()
                    gpu.memory[addresses[name]][: len(content)] = content
                gpu.clock += gpu.pass_ms
                gpu.executed += 1

            gpu.push(stream, work)
            return True

    trt.Builder, trt.OnnxParser, trt.Runtime = Builder, OnnxParser, Runtime
    return trt


def install(monkeypatch, gpu: Device, throttled: frozenset[int] = frozenset(), **options) -> types.ModuleType:
    """Put TensorRT, the CUDA bindings and NVML in place of the real ones for a test."""
    from rfdetr import provenance

    trt, api = tensorrt_module(gpu, **options), cuda_module(gpu)
    provenance.gpus.cache_clear()
    package, bindings = types.ModuleType("cuda"), types.ModuleType("cuda.bindings")
    package.bindings, bindings.runtime = bindings, api
    for name, module in {
        "tensorrt": trt,
        "pynvml": nvml_module(gpu, throttled),
        "cuda": package,
        "cuda.bindings": bindings,
        "cuda.bindings.runtime": api,
    }.items():
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)  # PyTorch looks for it
        monkeypatch.setitem(sys.modules, name, module)
    return trt

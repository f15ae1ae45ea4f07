"""ONNX Runtime with its CUDA and TensorRT providers, computed on the CPU: what the runtime calls of them."""

import onnxruntime

PROVIDERS = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


class Value:
    """An array on a device: it is used there, or copied."""

    def __init__(self, array, device: str, index: int) -> None:
        assert device == "cuda"
        self.array, self.index = array.copy(), index


class Binding:
    def __init__(self, session) -> None:
        self.session, self.inputs, self.outputs, self.found = session, {}, [], None

    def clear_binding_inputs(self) -> None:
        self.inputs = {}

    def bind_ortvalue_input(self, name: str, value: Value) -> None:
        assert value.index == self.session.device
        self.inputs[name] = value.array

    def bind_output(self, name: str, device: str, index: int) -> None:
        assert (device, index) == ("cuda", self.session.device)
        self.outputs.append(name)

    def synchronize_inputs(self) -> None:
        pass

    def synchronize_outputs(self) -> None:
        assert self.found is not None

    def copy_outputs_to_cpu(self):
        return self.found


def install(monkeypatch) -> list[dict]:
    """Put the providers in place for a test; returns the options of every session opened on a GPU."""
    real, opened = onnxruntime.InferenceSession, []

    class Session:
        def __init__(self, source, options=None, providers=()) -> None:
            self.provider, self.device = "CPUExecutionProvider", None
            if providers and providers[0][0] in PROVIDERS[:2]:
                self.provider, settings = providers[0]
                self.device = settings["device_id"]
                opened.append({"provider": self.provider, **settings})
            self.inner = real(source, options, providers=["CPUExecutionProvider"])

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def get_providers(self):
            return [self.provider]

        def io_binding(self):
            return Binding(self)

        def run_with_iobinding(self, binding) -> None:
            binding.found = self.inner.run(binding.outputs[: len(self.inner.get_outputs())], binding.inputs)

    class OrtValue:
        ortvalue_from_numpy = staticmethod(Value)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "OrtValue", OrtValue)
    return opened

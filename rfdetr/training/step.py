"""One weight update: forward, losses, backward, averaging over processes, clipping, AdamW, EMA."""

import math
from dataclasses import dataclass
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from rfdetr.model.detector import RFDETR
from rfdetr.training.batches import StepData
from rfdetr.training.config import TrainConfig
from rfdetr.training.ema import EMA
from rfdetr.training.losses import Criterion
from rfdetr.training.optim import build_optimizer, set_lr
from rfdetr.training.precision import Precision, resolve_precision


@dataclass(frozen=True)
class StepResult:
    """losses: by name, of the whole batch (all processes, averaged over the step's architectures). grad_norm:
    before clipping. updated: False when loss or gradients were not finite and the weights were left alone.
    """

    losses: dict[str, float]
    grad_norm: float
    lr: float
    updated: bool


class Stepper:
    """Updates a network in place.

    Gradients are averaged over processes by hand, in one buffer, instead of by hooks during backward: any
    parameter may be unused in a step, several architectures may share one, and accumulation needs no special
    case. Every loss is divided by the objects of the WHOLE batch, so a batch split over micro-batches or
    processes gives the same update.
    """

    def __init__(self, model: RFDETR, config: TrainConfig, fabric: Fabric) -> None:
        self.model, self.config, self.fabric = model, config, fabric
        self.device = fabric.device
        if fabric.world_size > 1:
            # On the processor: a pickled GPU tensor would land on the sender's device in every process.
            model.load_state_dict(fabric.broadcast({n: t.cpu() for n, t in model.state_dict().items()}))
        model.to(self.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.dtype = self.parameters[0].dtype
        self.optimizer = build_optimizer(model, config)
        self.precision = Precision(resolve_precision(config.precision, self.device), self.device)
        self.criterion = Criterion(
            model.config.groups, config.weights, config.costs, config.mask_points, config.mask_sampling
        )
        self.ema = EMA(model, config.ema_decay, config.ema_tau) if config.ema_decay is not None else None

    def __call__(self, data: StepData, step: int, objects: int) -> StepResult:
        """One update at step `step` (0-based) with this process's data; `objects` counts those of all
        processes.
        """
        factor = set_lr(self.optimizer, step, self.config)
        self.model.train()
        sums = self._backward(data, objects)
        names = list(sums)
        values = torch.stack(list(sums.values())).detach()
        if self.fabric.world_size > 1:
            self._average_gradients()
            values = cast(Tensor, self.fabric.all_reduce(values, reduce_op="mean"))
        self.precision.scaler.unscale_(self.optimizer)
        norm = self._clip()
        # The one wait for the device: whether to update must be known before the update.
        *losses, grad_norm = torch.cat([values, norm.to(values).reshape(1)]).tolist()
        updated = all(map(math.isfinite, losses)) and math.isfinite(grad_norm)
        if updated:
            self.precision.scaler.step(self.optimizer)
        self.precision.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if updated and self.ema is not None:
            self.ema.update(self.model)
        return StepResult(dict(zip(names, losses, strict=True)), grad_norm, self.config.lr * factor, updated)

    def _backward(self, data: StepData, objects: int) -> dict[str, Tensor]:
        """Gradients of this process's share; returns the losses by name."""
        normaliser = max(1, objects * self.model.config.groups) / self.fabric.world_size
        sums: dict[str, Tensor] = {}
        for arch, parts in zip(data.archs, data.images, strict=True):
            for images, targets, keys in zip(parts, data.targets, data.keys, strict=True):
                images = images.to(self.device, self.dtype, non_blocking=True)
                with self.precision.autocast():
                    output = self.model(images, arch)
                losses = self.criterion(output, targets, normaliser * len(data.archs), keys)
                self.precision.scaler.scale(losses["total"]).backward()
                for name, value in losses.items():
                    sums[name] = sums[name] + value.detach() if name in sums else value.detach()
        return sums

    def _average_gradients(self) -> None:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = self.fabric.all_reduce(_flatten_dense_tensors(gradients), reduce_op="mean")
        torch._foreach_copy_(gradients, list(_unflatten_dense_tensors(flat, gradients)))

    def _clip(self) -> Tensor:
        if self.config.clip_norm is not None:
            return torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm, foreach=True)
        return torch.nn.utils.get_total_norm(
            [p.grad for p in self.parameters if p.grad is not None], foreach=True
        )

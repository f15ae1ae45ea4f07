"""Where a network's weights come from, as far as it knows."""

from dataclasses import dataclass

from rfdetr.arch import Arch, SearchSpace, effective


@dataclass(frozen=True)
class Origin:
    """What a training left in its checkpoint, for whoever uses the network.

    source  the file
    step    weight updates that the weights have seen
    space   what the training drew its architectures from
    anchor  the encoder setting that was trained in every second step, if there was one
    data    the name or folder of its data, as `rfdetr.data.registry.load_dataset` takes it; "" if not known
    """

    source: str
    step: int
    space: SearchSpace
    anchor: tuple[int, int, int] | None = None
    data: str = ""

    def trained(self, arch: Arch) -> bool:
        """Whether training drew this architecture's encoder setting (depth and queries are only dropped)."""
        return arch.encoder in self.space.triples()

    def examples(self, most: int = 4) -> list[Arch]:
        """A few trained architectures over the whole range of costs, the most expensive first."""
        depth, queries = self.space.decoder_layers[-1], self.space.queries[-1]
        archs = [effective(*triple, depth, queries) for triple in self.space.triples()]
        archs.sort(key=lambda arch: (arch.tokens, -arch.windows, arch.resolution), reverse=True)
        most = min(most, len(archs))
        return [archs[round(i * (len(archs) - 1) / max(1, most - 1))] for i in range(most)]

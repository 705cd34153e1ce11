"""Read and edit what a model computes, block by block.

    with a Probe that only reads, the output is bitwise what it is without, and the fused kernels still run:
    attention probabilities are computed beside them, for the blocks asked for alone.

        probe = Probe("*.attention", "2.residual")
        model(x, probe=probe)
        probe["0.attention"]                                   # (B, H, L, M)

        ablated = Probe(edit={"1.heads": lambda heads: heads.index_fill(1, torch.tensor([3]), 0.0)})

Names are "<block>.<site>", `*` for every block: q (B,H,L,D), k, v (B,G,M,D), attention (B,H,L,M), heads (B,H,L,D)
before they are joined, residual (B,L,C) after the block.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase

from jaxtyping import Float
from torch import Tensor

from core.attention import probabilities
from core.bias import Bias
from core.masks import Mask

SITES = ("q", "k", "v", "attention", "heads", "residual")


class Probe:
    """Hand one to a model's call. Without one, nothing is computed.

    Args:
        read: names of what to keep, detached; all attention if none is given and nothing is edited.
        edit: name -> function of the tensor there to the one that shall take its place. Attention itself is not edited
            (the fused kernels never hold it): edit q, k, v or heads.
        reduce: what to keep of a tensor that is read, such as its mean; the tensor itself if None. It is called as soon
            as a block is done, so that maps of all blocks need not lie in memory at once.
    Raises:
        ValueError: for a name that no block has.
    """

    def __init__(
        self,
        *read: str,
        edit: dict[str, Callable[[Tensor], Tensor]] | None = None,
        reduce: Callable[[str, Tensor], Tensor] | None = None,
    ):
        self.read = read or (() if edit else ("*.attention",))
        self.edits, self.reduce = edit or {}, reduce
        self.values: dict[str, Tensor] = {}
        for name in (*self.read, *self.edits):
            _, _, site = name.partition(".")
            if site not in SITES or (site == "attention" and name in self.edits):
                raise ValueError(f"{name!r} cannot be probed; possible: <block>.{', <block>.'.join(SITES)}, or *.…")

    def __getitem__(self, name: str) -> Tensor:
        """Return the value that was read under "<block>.<site>". Raises KeyError if it was not read."""
        return self.values[name]

    @property
    def attention(self) -> list[Tensor]:
        """The attention probabilities of all probed blocks, first block first."""
        return [value for name, value in self.values.items() if name.endswith(".attention")]

    def block(self, number: int) -> "BlockProbe":
        """Return what reads and edits in one block."""
        return BlockProbe(self, number)


class BlockProbe:
    """The part of a Probe that belongs to one block."""

    def __init__(self, probe: Probe, number: int):
        self.probe, self.number = probe, number

    def record_qkv(
        self,
        q: Float[Tensor, "B H L D"],
        k: Float[Tensor, "B G M D"],
        v: Float[Tensor, "B G M D"],
        mask: Mask,
        bias: Bias | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read and edit what an attention layer is about to attend with."""
        q, k, v = self.edit("q", q), self.edit("k", k), self.edit("v", v)
        if self.wants("attention"):
            self.keep("attention", probabilities(q, k, mask=mask, bias=bias))
        return q, k, v

    def edit(self, site: str, value: Tensor) -> Tensor:
        """The tensor at a site: kept if it is read, after it was edited if it is."""
        for name, change in self.probe.edits.items():
            if fnmatchcase(f"{self.number}.{site}", name):
                value = change(value)
        if self.wants(site):
            self.keep(site, value)
        return value

    def wants(self, site: str) -> bool:
        return any(fnmatchcase(f"{self.number}.{site}", name) for name in self.probe.read)

    def keep(self, site: str, value: Tensor) -> None:
        name, reduce = f"{self.number}.{site}", self.probe.reduce
        self.probe.values[name] = value.detach() if reduce is None else reduce(name, value.detach())

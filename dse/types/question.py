"""What is asked: requests, arrivals, a layout, an owner's prices, and one deployment of them all."""

from __future__ import annotations

from dse.types.base import Number, pytree
from dse.types.chip import Chip, Store
from dse.types.formats import Format, named_format
from dse.types.model import LLM


@pytree()
class Speculation:
    """Tokens are guessed ahead and verified together."""

    tokens: Number  # drafted in a step
    acceptance: Number  # probability that a drafted token is accepted
    draft: LLM | None = None  # the model that guesses; None: an extra layer of the model itself (multi-token prediction)


@pytree()
class Offload:
    """Part of every request's cache lies in the memory of the host and passes its link in every step."""

    share: Number  # of the cache
    host: Store  # one chip's share of the host: capacity; time and energy of the slower of link and memory
    usd_per_byte: Number  # of host memory, paid for what is held


@pytree()
class Workload:
    """One kind of request."""

    input_tokens: Number
    output_tokens: Number
    uneven_routing: Number = 1.0  # 1: power-law expert load; 0: balanced
    shared_prefix_tokens: Number | None = None  # of the input, already cached and shared by all requests
    samples: Number | None = None  # answers drawn for one input, which is prefilled and cached once; each counts in ``Layout.batch``
    speculation: Speculation | None = None
    offload: Offload | None = None  # of every layout that says nothing of it itself
    copies_per_rank: Number | None = None  # further copies of busy experts for each rank of expert parallelism, where a layout says none


@pytree()
class Arrivals:
    """Requests that arrive at random (Poisson), with lengths that differ (lognormal); the means are those of the workload."""

    input_cv: Number  # standard deviation of the input over its mean
    output_cv: Number
    rate_per_s: Number | None = None  # requests a second of the instance
    load: Number | None = None  # instead: share of the rate at which all of ``Layout.batch`` stay busy


@pytree()
class Layout:
    """How one instance is cut over chips: ``chips = tp * pp * cp * dp``; ``ep`` re-uses the chips of a stage."""

    tp: Number = 1.0
    pp: Number = 1.0
    cp: Number | None = 1.0  # None: 1, in another compiled version without context parallelism; so also dp and ep
    dp: Number | None = 1.0
    ep: Number | None = 1.0
    batch: Number = 1.0  # requests in the instance at the same time, all chips together
    format: Format | str | None = None  # None: the format of release, or the next wider one that the chip computes
    offload: Offload | None = None  # None: the whole cache lies on the chips
    redundant_experts: Number | None = None  # further copies of routed experts in each layer, of the most used ones; None: none

    def __post_init__(self) -> None:
        """Turn the name of a format (``"fp8"``, or ``"fp8/bf16"`` with a cache format) into its numbers."""
        if isinstance(self.format, str):
            object.__setattr__(self, "format", named_format(*self.format.split("/")))


@pytree()
class Prices:
    """An owner's view of money, and the scenario values that belong to it. Prices in USD of one stated year."""

    cost_multiple: Number  # price of a fabricated chip over its unit cost (1: at cost)
    buys_at_street: Number  # 1: street price, where there is one, else unit cost x ``vendor_multiple``
    vendor_multiple: Number
    rents: Number  # 1: everything is rented by the hour
    rent_per_price: Number  # USD per s of rent for one USD of street price, where no rent is known
    nre_share: Number  # 1: the owner pays the NRE
    volume_wafer: Number  # wafers over which design and masks are spread
    model_volume_wafer: Number  # wafers over which the masks of one model are spread (burned-in weights)
    discount_per_year: Number
    life_year: Number  # of a server
    model_life_year: Number  # of a model that is burned in
    server_usd: Number  # server remainder of one reference slot
    network_usd: Number
    storage_usd: Number
    host_w: Number  # host, network and storage power of one reference slot
    conversion_air: Number  # losses as a share of chip power
    conversion_liquid: Number
    pue_air: Number
    pue_liquid: Number
    energy_usd_per_j: Number
    facility_usd_per_j: Number  # building and cooling, by provisioned power
    utilisation: Number  # share of time in which the fleet serves


@pytree("serving")
class Deployment:
    """One chip type, model, workload, layout and owner: everything that ``evaluate`` needs."""

    chip: Chip
    model: LLM
    workload: Workload
    layout: Layout
    prices: Prices
    prefill_layout: Layout | None = None  # disaggregated serving: layout of a prefill instance (None: as ``layout``)
    prefill_chip: Chip | None = None  # disaggregated serving: chip of a prefill instance (None: as ``chip``)
    arrivals: Arrivals | None = None  # None: a closed loop of ``layout.batch`` requests; else at most that many at the same time
    serving: str = "aggregated"  # aggregated | disaggregated | decode | prefill | static
    quality: Number | None = None  # worth of a token, stated by the user (such as 0.97 for a coarse format); None: not asked

"""What each machine of a run costs, where they are of several types.

    price of the flags, price table, type of a machine -> [machine_prices] -> USD an hour -> bill

The rule, in this order: `--usd-per-hour` is the price of every machine, because the user knows it
best; a type that the cloud names and the table has costs what the table says; any other machine is
of `--instance-type`; without that flag, its cores cost what cores cost on the median. Of a machine
of a type, the part is paid for that the run may use. This module knows nothing of nodes, shards or
Ray.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fastformers.cluster.pricing.machine_check import price_owned_part
from fastformers.cluster.pricing.prices import (
    HourlyPrice,
    InstancePrice,
    choose_price,
)
from fastformers.inference.cpu import Machine


@dataclass(frozen=True, kw_only=True)
class MachinePrices:
    """Prices of the machines of a run.

    Attributes:
        given: Price of the flags, or the estimate for this machine where none was given.
        table: The table of `load_prices`.
    """

    given: HourlyPrice
    table: Mapping[str, InstancePrice]

    def price_of(
        self, instance_type: str | None, *, num_cores: int = 0, seen: Machine | None = None
    ) -> HourlyPrice:
        """Price of a machine, or of the part of it that the run may use.

        Args:
            instance_type: Name that its cloud gives its type; None where it is not known.
            num_cores: Physical cores that the run may use of it; 0 for those of this machine.
            seen: What the machine is; None where that is not known.
        """
        is_for_all = not self.given.is_estimate and self.given.instance_type is None
        if not is_for_all and (price := self.table.get(instance_type or "")):
            return price_owned_part(price, num_cores=num_cores, seen=seen)
        if num_cores and (price := self.table.get(self.given.instance_type or "")):
            return price_owned_part(price, num_cores=num_cores, seen=seen)
        if self.given.is_estimate and num_cores:
            return choose_price(
                usd_per_hour=None, instance_type=None, num_cores=num_cores, prices=self.table
            )
        return self.given

"""Draw what a run said it would cost over the share that was done, and the bill.

    quotes -> [plot] -> sections -> report.html

This module does not know where the plot stands. Needs the extra `report`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastformers.cluster.records.quotes import Quote
from fastformers.figure import THEME, draw_legend, render_twice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHTS = (260, 300)


def plot_history(history: Sequence[Quote], usd_total: float) -> str:
    """Forecasts of the total with their intervals, from the first to the last.

    Args:
        history: At least one quote.
        usd_total: The bill.
    """

    def draw(is_wide: bool, figure: "Figure") -> None:
        axes = figure.subplots()
        percent = [100 * quote.share for quote in history]
        low = [quote.usd_low for quote in history]
        high = [quote.usd_high for quote in history]
        color = THEME.series[0]
        axes.vlines(percent, low, high, color=color, linewidth=2, alpha=0.4, label="90% interval")
        usd = [quote.usd for quote in history]
        axes.plot(percent, usd, color=color, marker="o", markersize=4, label="forecast")
        axes.axhline(usd_total, color=THEME.series[1], linewidth=1.5, label="bill")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 1.1 * max(*high, usd_total))
        axes.grid(True)
        axes.set_xlabel("% of the work done")
        axes.set_ylabel("USD")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        draw_legend(figure, is_wide)

    return render_twice(draw, "quotes", f"{len(history)} forecasts of the bill", _HEIGHTS)

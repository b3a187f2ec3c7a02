"""A table of a known process: eight mixed columns, holes, nullable dtypes."""

import numpy as np
import pandas as pd

SCHOOLS = ["none", "primary", "secondary", "higher"]


def people(num_rows, seed, holes=0.2):
    """`(whole, with holes)`; entries are missing completely at random."""
    rng = np.random.RandomState(seed)
    young = rng.uniform(size=num_rows) < 0.6
    age = np.where(young, rng.normal(34, 7, num_rows), rng.normal(62, 9, num_rows))
    age = age.clip(18, 95).round()
    school = np.minimum(rng.poisson(np.where(age < 48, 1.9, 0.9)), 3)
    log_income = 9.3 + 0.35 * school + 0.8 * np.sin(age / 22)
    log_income += rng.normal(0, 0.15, num_rows)
    region = (rng.poisson(0.7, num_rows) + 2 * (age > 48)) % 5
    rate = 2 + 9 * (region == 1) + 5 * np.maximum(0, log_income - 10)
    visits = np.minimum(rng.poisson(rate), 20)
    member = rng.uniform(size=num_rows) < 1 / (1 + np.exp(6 - visits))
    days = rng.uniform(0, 300, num_rows) + 60 * visits
    whole = pd.DataFrame(
        {
            "age": age.astype("int64"),
            "school": pd.Categorical(np.array(SCHOOLS)[school], SCHOOLS, ordered=True),
            "income": np.exp(log_income),
            "region": np.array(list("NESWC"))[region],
            "visits": visits.astype("int64"),
            "member": member,
            "height": rng.normal(170, 8, num_rows) - 6 * (region == 2),
            "joined": pd.Timestamp("2015-01-01") + pd.to_timedelta(days.round(), "D"),
        },
        index=pd.Index(np.arange(num_rows) * 2 + 7, name="person"),
    )
    types = {"age": "Int64", "visits": "float64", "member": "boolean"}
    frame = whole.astype(types)
    for name in frame.columns:
        frame[name] = frame[name].where(rng.uniform(size=num_rows) >= holes)
    return whole, frame

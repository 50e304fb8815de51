"""The table of sources of a payload against astropy's own writer."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from tract7dt.patches.source_table import table_columns, table_extension

FORMATS = {"f": "D", "i": "K", "b": "L"}


@pytest.mark.parametrize("n", [0, 1, 7])
def test_the_extension_is_astropys_to_the_byte(n: int) -> None:
    rng = np.random.default_rng(n)
    names = [f"ID {i}é"[: 4 + i] for i in range(n)]
    table = pd.DataFrame(
        {
            "ID": pd.Series(names, dtype="str"),
            "x_pix": np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n)),
            "source_index": rng.integers(-(2**60), 2**60, n),
            "is_halo": rng.random(n) < 0.5,
            "a_column_with_a_name_that_is_as_long_as_names_of_columns_get_": rng.normal(size=n).astype("f4"),
        }
    )
    columns = table_columns(table)
    cards, data = table_extension(table, columns)
    made = []
    for column in columns:
        values = table[column["name"]].to_numpy()
        if column["type"] == "str":
            text = [str(value).encode("unicode_escape") for value in values]
            width = max((len(value) for value in text), default=1)
            made.append(fits.Column(column["label"], f"{width}A", array=np.array(text, dtype=f"S{width}")))
        else:
            made.append(fits.Column(column["label"], FORMATS[values.dtype.kind], array=values))
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(made, nrows=n, name="SOURCES")]).writeto(
        stream
    )
    expected = stream.getvalue()[2880:]
    header = (cards + "END".ljust(80)).encode()
    assert expected.startswith(header)
    start = -(-len(header) // 2880) * 2880
    assert expected[start:].rstrip(b"\0") == data.rstrip(b"\0")
    assert len(expected[start:]) == -(-len(data) // 2880) * 2880

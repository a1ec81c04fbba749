"""Raw columns to feature arrays, natively in Spark, by the fitted encodings."""

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from recspark.encodings import MISSING_CODE, Category, Number

MICROSECONDS_PER_DAY = 86_400_000_000


def signed_log(column: str) -> Column:
    """`sign(x) * log(1 + |x|)` as double; null where the value is null, NaN or infinite."""
    value = F.col(column).cast("double")
    finite = F.when(~F.isnan(value) & (F.abs(value) != float("inf")), value)
    return F.signum(finite) * F.log1p(F.abs(finite))


def numbers(encodings: Sequence[Number]) -> Column:
    """array<float>: each numeric column standardised, NaN where missing."""
    values = [
        F.coalesce((signed_log(e.column) - e.center) / e.scale, F.lit(float("nan"))).cast("float")
        for e in encodings
    ]
    return F.array(*values).cast("array<float>")


def amounts(encodings: Sequence[Number]) -> Column:
    """array<double>: the same columns as they are, NaN where missing."""
    values = [F.coalesce(F.col(e.column).cast("double"), F.lit(float("nan"))) for e in encodings]
    return F.array(*values).cast("array<double>")


def codes(encodings: Sequence[Category]) -> Column:
    """array<int>: 0 for null, 1 for a value unseen in training, i + 2 for `values[i]`."""
    values = [
        F.coalesce(
            F.array_position(F.array(*map(F.lit, e.values)), F.col(e.column).cast("string"))
            if e.values
            else F.when(F.col(e.column).isNotNull(), 0),
            F.lit(MISSING_CODE - 1),
        )
        + 1
        for e in encodings
    ]
    return F.array(*values).cast("array<int>")


def days_since_1970(column: str) -> Column:
    """A timestamp or date as double days, null where null."""
    return F.unix_micros(F.col(column).cast("timestamp")) / MICROSECONDS_PER_DAY


def times(columns: Sequence[str]) -> Column:
    """array<double>: each timestamp column as days since 1970, NaN where missing."""
    values = [F.coalesce(days_since_1970(column), F.lit(float("nan"))) for column in columns]
    return F.array(*values).cast("array<double>")


def buckets(columns: Sequence[str], num_buckets: int) -> Column:
    """array<int>: hash buckets of the words and word pairs of all texts, sorted and distinct.

    Words are runs of letters and digits in lower case. The hashing trick: Weinberger et al. 2009,
    arXiv:0902.2206.
    """
    if not columns:
        return F.array().cast("array<int>")
    text = F.lower(F.concat_ws(" ", *[F.col(column) for column in columns]))
    words = F.filter(F.split(text, r"[^\p{L}\p{N}]+"), lambda word: word != "")
    following = F.slice(words, 2, F.greatest(F.size(words) - 1, F.lit(0)))
    pairs = F.filter(
        F.zip_with(words, following, lambda a, b: F.concat_ws(" ", a, b)),
        lambda pair: pair.contains(" "),
    )
    grams = F.array_distinct(F.concat(words, pairs))
    hashed = F.transform(grams, lambda gram: F.pmod(F.xxhash64(gram), F.lit(num_buckets)))
    return F.array_sort(F.array_distinct(hashed)).cast("array<int>")

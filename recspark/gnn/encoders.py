"""From columns to vectors: numbers, categories, times and text of a node or event.

Axes: N rows, F columns, K knots, D channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recspark import windows
from recspark.encodings import TableEncoding
from recspark.gnn.catalogue import Features

_HALF_LIVES_DAYS = (1.0, 3.0, 7.0, 14.0, 30.0, 90.0, 365.0)
_PERIODS_DAYS = (7.0, 30.4, 91.3, 365.25)
_LOG_SCALE = 8.0  # log1p of eight years in days
TIME_CHANNELS = 1 + len(_HALF_LIVES_DAYS) + 2 * len(_PERIODS_DAYS)


def encode_ages(ages: Tensor) -> Tensor:
    """Ages in days (>= 0), any shape, as `TIME_CHANNELS` numbers of size about 1 on a last axis.

    A logarithm tells orders of magnitude, decays tell recent ages apart, waves tell the season.
    """
    ages = ages.unsqueeze(-1)
    decays = 0.5 ** (ages / ages.new_tensor(_HALF_LIVES_DAYS))
    waves = 2 * torch.pi * ages / ages.new_tensor(_PERIODS_DAYS)
    return torch.cat([ages.log1p() / _LOG_SCALE, decays, waves.sin(), waves.cos()], dim=-1)


class Numbers(nn.Module):
    """Standardised numbers with a flag per missing value, to D channels."""

    def __init__(self, num_columns: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * num_columns, width, bias=False) if num_columns else None

    def forward(self, numbers_NF: Tensor) -> Tensor | float:
        """Return (N, D), or 0 when there are no columns."""
        if self.linear is None:
            return 0.0
        missing_NF = numbers_NF.isnan()
        flagged = torch.cat([numbers_NF.nan_to_num(0.0), missing_NF.to(numbers_NF.dtype)], dim=1)
        vectors_ND: Tensor = self.linear(flagged)
        return vectors_ND


class Categories(nn.Module):
    """The sum of one embedding per category column."""

    starts: Tensor

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sum(sizes), width) if sizes else None
        starts = torch.tensor([0, *sizes[:-1]], dtype=torch.int64).cumsum(0)
        self.register_buffer("starts", starts, persistent=False)

    def forward(self, codes_NF: Tensor) -> Tensor | float:
        """Return (N, D), or 0 when there are no columns."""
        if self.embedding is None:
            return 0.0
        vectors_NFD: Tensor = self.embedding(codes_NF + self.starts)
        return vectors_NFD.sum(dim=1)


class NodeEncoder(nn.Module):
    """What a node's own columns say of it at an anchor."""

    def __init__(self, encoding: TableEncoding, width: int, text_buckets: int) -> None:
        super().__init__()
        self.numbers = Numbers(len(encoding.numbers), width)
        self.categories = Categories(encoding.category_sizes, width)
        num_times = len(encoding.times)
        self.times = nn.Linear(num_times * (TIME_CHANNELS + 1), width) if num_times else None
        self.texts = (
            nn.EmbeddingBag(text_buckets, width, mode="mean", include_last_offset=True)
            if encoding.texts
            else None
        )
        self.bias_D = nn.Parameter(torch.zeros(width))
        self.out = nn.Sequential(nn.SiLU(), nn.LayerNorm(width), nn.Linear(width, width))

    def forward(self, features: Features, anchor_days: float) -> Tensor:
        """Return (N, D). A time after the anchor counts as missing: it was not known then."""
        sum_ND = self.bias_D + self.numbers(features.numbers_NF)
        sum_ND = sum_ND + self.categories(features.codes_NC)
        if self.times is not None:
            times_NT = features.times_NT
            known_NT = windows.is_visible(times_NT, anchor_days)
            ages_NT = torch.where(known_NT, anchor_days - times_NT, 0.0).float()
            encoded = encode_ages(ages_NT) * known_NT.unsqueeze(-1)
            flagged = torch.cat([encoded, (~known_NT).float().unsqueeze(-1)], dim=-1)
            sum_ND = sum_ND + self.times(flagged.flatten(1))
        if self.texts is not None:
            sum_ND = sum_ND + self.texts(features.buckets, features.bucket_offsets)
        vectors_ND: Tensor = self.out(sum_ND.expand(len(features.numbers_NF), -1))
        return vectors_ND


_FARTHEST = 5.0  # deviations


class Quantiles(nn.Module):
    """Each column twice: through its own distribution function to [-1, 1], and as a logarithm.

    The distribution function is piecewise linear; a value among equal knots takes the middle of
    them, so that a column that is mostly one value keeps it at one place. The logarithm
    sign(x) log(1 + |x|), with mean 0 and deviation 1 over the knots and cut at 5 deviations, tells
    apart what lies in the column's tail. Missing values become 0 in both, with a flag.
    """

    knots_FK: Tensor  # distinct knots, +inf beyond a column's last
    first_FK: Tensor  # place in [-1, 1] of the first of the knots equal to this one
    last_FK: Tensor  # ... and of the last
    center_F: Tensor  # mean and deviation of the knots' logarithms
    scale_F: Tensor

    def __init__(self, knots: Sequence[Sequence[float]]) -> None:
        super().__init__()
        columns = [_distinct_knots(column) for column in knots]
        longest = max((len(column) for column in columns), default=0)
        beyond = (float("inf"), 0.0, 0.0)
        padded = [[*column, *[beyond] * (longest - len(column))] for column in columns]
        values_FK3 = torch.tensor(padded, dtype=torch.float32).reshape(len(knots), longest, 3)
        for place, name in enumerate(("knots_FK", "first_FK", "last_FK")):
            self.register_buffer(name, values_FK3[:, :, place].contiguous(), persistent=False)
        logarithms = [_logarithm(torch.tensor(column or (0.0,))) for column in knots]
        center_F = torch.tensor([float(values.mean()) for values in logarithms])
        scale_F = torch.tensor([float(values.std(correction=0)) for values in logarithms])
        self.register_buffer("center_F", center_F, persistent=False)
        self.register_buffer("scale_F", scale_F.where(scale_F > 0, 1.0), persistent=False)

    @property
    def width(self) -> int:
        """Columns of the result: three per column of the input."""
        return 3 * len(self.center_F)

    @torch.no_grad()
    def forward(self, values_NF: Tensor) -> Tensor:
        """Return (N, 3F) float32: places, logarithms, flags that are 1 where a value is missing."""
        missing_NF = values_NF.isnan()
        if values_NF.shape[1] == 0:
            return values_NF
        lowest_F = self.knots_FK[:, 0]
        highest_F = self.knots_FK.where(self.knots_FK.isfinite(), -torch.inf).amax(1)
        clamped_NF = torch.where(missing_NF, lowest_F, values_NF).clamp(lowest_F, highest_F)
        values_FN = clamped_NF.T.contiguous()
        above_FN = torch.searchsorted(self.knots_FK, values_FN)
        below_FN = (above_FN - 1).clamp(min=0)
        start_FN, knot_FN = self.last_FK.gather(1, below_FN), self.knots_FK.gather(1, below_FN)
        end_FN, next_FN = self.first_FK.gather(1, above_FN), self.knots_FK.gather(1, above_FN)
        share_FN = (values_FN - knot_FN) / (next_FN - knot_FN)
        between_FN = start_FN + share_FN * (end_FN - start_FN)
        among_FN = (end_FN + self.last_FK.gather(1, above_FN)) / 2
        places_FN = torch.where(next_FN == values_FN, among_FN, between_FN)
        logarithms_NF = (_logarithm(values_NF) - self.center_F) / self.scale_F
        both_2NF = torch.stack([places_FN.T, logarithms_NF.clamp(-_FARTHEST, _FARTHEST)])
        return torch.cat([*both_2NF.masked_fill(missing_NF, 0.0), missing_NF.float()], dim=1)

    def change_where_missing(self, encoded: Tensor, columns_F: Tensor) -> tuple[Tensor, Tensor]:
        """How what `forward` returned changes where these columns (bool) are missing everywhere.

        Returns the change (N, 3f) float32 and the columns of the result that change (3f,) int64.
        """
        own = columns_F.nonzero().squeeze(1)
        num_columns = len(columns_F)
        changed = torch.cat([own, own + num_columns, own + 2 * num_columns])
        is_flag = (changed >= 2 * num_columns).to(encoded.dtype)
        return is_flag - encoded[:, changed], changed


def _logarithm(values: Tensor) -> Tensor:
    return values.sign() * values.abs().log1p()


def _distinct_knots(column: Sequence[float]) -> list[tuple[float, float, float]]:
    """Each distinct knot with the places of the first and the last of those equal to it.

    Knots are rounded to float32 first: that is what values are compared with.
    """
    values = torch.tensor(column or (0.0,), dtype=torch.float32)
    distinct, counts = torch.unique_consecutive(values, return_counts=True)
    ends = counts.cumsum(0)
    step = 2 / max(len(values) - 1, 1)
    if len(distinct) == 1:
        return [(distinct.item(), 0.0, 0.0)]
    first = (ends - counts) * step - 1
    last = (ends - 1) * step - 1
    return list(zip(distinct.tolist(), first.tolist(), last.tolist(), strict=True))

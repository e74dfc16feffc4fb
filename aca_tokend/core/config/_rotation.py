"""`[rotation]`: when a token is rotated, and how long to wait after a failure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from aca_tokend.core.config._kinds import DAY, HOUR, YEAR, Duration, written
from aca_tokend.core.config._table import Table
from aca_tokend.core.config._wrong import refuse
from aca_tokend.core.durations import format_duration


class BackoffConfig(Table):
    """How long to wait after a failure: a random time up to a limit, which doubles with each failure in a row."""

    initial: Annotated[float, Duration(0.01, HOUR)] = written("1s", description="The limit after one failure.")
    cap: Annotated[float, Duration(0.01, DAY)] = written("1m", description="The limit never grows beyond this.")

    @field_validator("cap")
    @classmethod
    def _ordered(cls, value: float, info: ValidationInfo) -> float:
        initial = info.data.get("initial", 0.0)
        if value < initial:
            refuse(
                f"is shorter than initial: {format_duration(value)} against {format_duration(initial)}",
                "raise cap or lower initial",
            )
        return value


class RotationConfig(Table):
    """When a token is rotated. `[rotation]` has the defaults; `[tokens.rotation]` overrides keys for one token."""

    fraction: float = Field(
        default=0.667, gt=0, lt=1, description="Rotation point, as a share of the token's lifetime."
    )
    jitter: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="The rotation point comes up to this share earlier, drawn once for each token.",
    )
    min_interval: Annotated[float, Duration(0.1, DAY)] = written(
        "10s", description="No token is asked for sooner than this after one that works, whatever the server says."
    )
    assumed_lifetime: Annotated[float, Duration(1, YEAR)] = written(
        "1h", description="Lifetime of a token for which the server names none."
    )
    max_lifetime: Annotated[float, Duration(1, 10 * YEAR)] = written(
        "31d", description="What is published and is valid for longer than this from issue is not adopted."
    )
    backoff: BackoffConfig = Field(default=BackoffConfig(), description="How long to wait after a failure.")
    max_rejections: int = Field(
        default=2, ge=1, le=10, description="After so many rejections of an unchanged credential a token is suspended."
    )
    retry_rejected: Annotated[float, Duration(1, YEAR, zero=True)] = written(
        "1h", description='A suspended token is tried again after this time all the same; `"0s"` means never.'
    )

    @field_validator("assumed_lifetime")
    @classmethod
    def _reachable(cls, value: float, info: ValidationInfo) -> float:
        if not {"fraction", "jitter", "min_interval"} <= info.data.keys():
            return value
        earliest = value * info.data["fraction"] * (1 - info.data["jitter"])
        if earliest < info.data["min_interval"]:
            after = format_duration(earliest if earliest < 1 else round(earliest))
            shortest = format_duration(info.data["min_interval"])
            refuse(
                f"a token of assumed_lifetime has its rotation point after {after}, before min_interval, {shortest}",
                "raise assumed_lifetime or fraction, or lower jitter or min_interval",
                at="",
            )
        return value

    @field_validator("max_lifetime")
    @classmethod
    def _longest(cls, value: float, info: ValidationInfo) -> float:
        assumed = info.data.get("assumed_lifetime", 0.0)
        if value < assumed:
            refuse(
                f"is shorter than assumed_lifetime: {format_duration(value)} against {format_duration(assumed)}",
                "raise max_lifetime or lower assumed_lifetime",
            )
        return value

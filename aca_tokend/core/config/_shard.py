"""`[shard]`: which of several daemons this one is, where each keeps a share of the tokens."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from aca_tokend.core.config._references import LocalReference, NumberOrLocalReference
from aca_tokend.core.config._table import Table
from aca_tokend.core.config._wrong import refuse

MOST_SHARDS = 1024


class ShardConfig(Table):
    """This daemon's share of the tokens, where several daemons keep one each."""

    count: Annotated[int, Field(ge=1, le=MOST_SHARDS)] = Field(
        description="How many shards there are. A token belongs to the one that hashing of its name picks.",
        examples=[4],
    )
    index: NumberOrLocalReference = Field(
        description="Which of them this is, from 0. Of a name such as `aca-tokend-3` the number at its end counts.",
        examples=[{"env": "ACA_TOKEND_SHARD"}],
    )

    @field_validator("index")
    @classmethod
    def _within(cls, value: int | LocalReference, info: ValidationInfo) -> int | LocalReference:
        count = info.data.get("count")
        if isinstance(value, int) and count is not None and not 0 <= value < count:
            refuse(f"is not one of {count} shards", f"write a number from 0 to {count - 1}")
        return value

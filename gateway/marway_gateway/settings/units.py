"""What settings are counted in, with their bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

__all__ = ["Bytes", "Count", "Percent", "Port", "Seconds"]

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]
Percent = Annotated[int, Field(ge=0, le=100)]

"""Reading stored JSON, which may hold anything: values of the right type and size, or a one-line error."""

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from annotated_types import Ge, Gt, Len, Lt

# Sizes far beyond anything measured, and so near that no sum, product or ratio of two overflows.
LEAST, MOST = 1e-18, 1e18
Positive = Annotated[float, Gt(LEAST), Lt(MOST)]
Share = Annotated[float, Ge(0), Lt(MOST)]
Count = Annotated[int, Ge(0), Lt(int(MOST))]
Size = Annotated[int, Gt(0), Lt(2**40)]
Shape = Annotated[tuple[Size, ...], Len(1, 16)]

T = TypeVar("T")


class ResultsError(ValueError):
    """A file that is not a result of this benchmark."""


def read(path: Path) -> Any:
    """What a JSON file holds; raises ResultsError where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResultsError(f"results must be a readable JSON file, got {path}: {reason}") from None


def made(cls: type[T], fields: Any) -> T:
    """A dataclass from what JSON has of it; ResultsError where a field is missing or has another type."""
    from pydantic import ValidationError  # takes a third of a second to import

    # lone surrogates, which JSON may hold, are no text
    text = json.dumps(fields, ensure_ascii=False).encode(errors="replace")
    try:
        value: T = _adapter(cast(Any, cls)).validate_json(text, strict=True)
        return value
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
    where = ".".join(map(str, found["loc"])) or "the whole"
    if found["type"] == "missing":
        raise ResultsError(f"{where} is missing")
    rule = found["msg"].replace("Input should", f"{where} must")
    raise ResultsError(f"{rule}, got {found['input']!r:.40}")


@cache
def _adapter(cls: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)

"""Reading stored JSON, which may hold anything: values of the right type and size, or a one-line error."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

# Sizes far beyond anything measured, and so near that no sum, product or ratio of two overflows.
LEAST, MOST = 1e-18, 1e18
Positive = Annotated[float, Meta(gt=LEAST, lt=MOST)]
Share = Annotated[float, Meta(ge=0, lt=MOST)]
Count = Annotated[int, Meta(ge=0, lt=int(MOST))]
Size = Annotated[int, Meta(gt=0, lt=2**40)]
Shape = Annotated[tuple[Size, ...], Meta(min_length=1, max_length=16)]

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
    try:
        # lone surrogates, which JSON may hold, are no text; and what is made may itself be a case
        text = json.dumps({"case": fields}, ensure_ascii=False).encode(errors="replace")
        fields = json.loads(text, object_hook=_with_pass)["case"]
        return msgspec.convert(fields, cls)
    except RecursionError:
        raise ResultsError("fields must be nested less deeply") from None
    except msgspec.ValidationError as error:
        message = str(error)
    raise ResultsError(_complaint(cls, fields, message))


def each_once(names: Iterable[str], path: Path) -> None:
    """Raise ResultsError where a file has a case twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ResultsError(f"results must have each case once, got {twice[0]!r:.200} again in {path}")


def _with_pass(fields: dict[str, Any]) -> dict[str, Any]:
    """The `pass` of a case under its name in Python, `pass_`: the reverse of results.as_json."""
    case = fields.get("case")
    if isinstance(case, dict) and "pass" in case:
        case["pass_"] = case.pop("pass")
    return fields


def _complaint(cls: type, fields: Any, message: str) -> str:
    """What msgspec says, as rule and value: "Expected `int`, got `str` - at `$.rows[0].calls`"."""
    # the problem may quote a value that looks like a path: the last one is msgspec's own
    problem, at, path = message.rpartition(" - at `$")
    if not at:
        problem, path = path, ""
    where, value = "", fields
    for index, name in re.findall(r"\[(\d+|\.\.\.)\]|\.(\w+)", path):
        key = name or (_wrong_key(cls, fields, value, message) if index == "..." else int(index))
        where += f"[{key!r:.40}]" if index == "..." else f".{index or name.rstrip('_')}"
        value = value[key]
    if missing := re.fullmatch("Object missing required field `(.+)`", problem):
        return f"{where}.{missing[1].rstrip('_')}".lstrip(".") + " is missing"
    expected = re.fullmatch("Expected (.+?)(, got .+)?", problem)
    rule = expected[1].replace("`", "") if expected else "a permitted value"
    return f"{where.lstrip('.') or 'the whole'} must be {rule}, got {value!r:.40}"


def _wrong_key(cls: type, fields: Any, mapping: dict[str, Any], message: str) -> str:
    """Whose value the message is about, which names only the mapping: the one that gives it alone too."""
    for key, value in list(mapping.items()):
        mapping.clear()
        mapping[key] = value
        try:
            msgspec.convert(fields, cls)
        except msgspec.ValidationError as error:
            if str(error) == message:
                break
    return key

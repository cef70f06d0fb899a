"""A typed question to a chat model: a JSON schema goes out with it, a checked value comes back.

Used for the final answer of a run (``output_type``) and for the ladder's last rung.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import TypeAdapter, ValidationError

from specialists import InvalidAnswer, InvalidArguments
from specialists.ladder import jsonable
from specialists.signatures import check_answer, problems_of

from .tooling import load_object

__all__ = ["TypedAnswer"]


_FENCED = re.compile(r"```\w*\s(.*)```", re.DOTALL)


class TypedAnswer:
    """The JSON form of an answer of one type. A type that is not an object is wrapped as ``{"answer": …}``.

    Chat completions want an object at the root of a schema. Endpoints that ignore the schema give the bare value; that
    is taken too, when it fits the type.
    """

    def __init__(self, adapter: TypeAdapter[Any], *, schema: dict[str, Any] | None = None) -> None:
        self._adapter = adapter
        inner = dict(schema or adapter.json_schema())
        self._wrapped = inner.get("type") != "object" or "properties" not in inner
        if self._wrapped:
            definitions = inner.pop("$defs", None)
            self.schema: dict[str, Any] = {
                "type": "object",
                "properties": {"answer": inner},
                "required": ["answer"],
                "additionalProperties": False,
            }
            if definitions:
                self.schema["$defs"] = definitions
        else:
            self.schema = inner

    def parse(self, text: str, who: str) -> Any:
        """The value in a model's text. Raises ``specialists.InvalidAnswer``."""
        text = _without_fence(text)
        if self._wrapped and not text.lstrip().startswith("{"):
            text = f'{{"answer": {text}}}'  # a model that gave the bare value meant this
        try:
            value: Any = load_object(text, who)
        except InvalidArguments as error:
            raise InvalidAnswer(f"{who} did not answer with the JSON it was asked for: {error.problems[0]}") from None
        if self._wrapped:
            if "answer" in value and len(value) > 1:
                raise InvalidAnswer(f"{who} did not answer with an object that has just the key 'answer'")
            value = value.get("answer", value)
        try:
            # As JSON and not as Python values: only there does strict mean the types that JSON has.
            checked = self._adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            raise InvalidAnswer(f"{who} answered with the wrong type: {'; '.join(problems_of(error))}") from None
        return check_answer(self._adapter, checked, who)

    def take(self, value: Any, who: str) -> Any:
        """``value``, from somewhere else than a model, as one of this type. Raises ``specialists.InvalidAnswer``."""
        try:
            checked = self._adapter.validate_python(value)
        except Exception as error:  # a ValidationError, or what a validator of the type's own raises
            said = "; ".join(problems_of(error)) if isinstance(error, ValidationError) else str(error)
            raise InvalidAnswer(f"{who} answered with the wrong type: {said}") from None
        return check_answer(self._adapter, checked, who)

    def plain(self, value: Any) -> Any:
        """``value`` as JSON types: what answers are compared and shown by."""
        try:
            return self._adapter.dump_python(value, mode="json", warnings=False)
        except Exception:  # what the type cannot write, a serializer of its own that raises
            return jsonable(value)

    def write(self, value: Any) -> str:
        """``value`` as a model would have answered it."""
        plain = self.plain(value)
        return json.dumps({"answer": plain} if self._wrapped else plain, ensure_ascii=False)


def _without_fence(text: str) -> str:
    """Many models put JSON between code fences, whatever they were asked."""
    found = _FENCED.fullmatch(text.strip())
    return found[1] if found else text

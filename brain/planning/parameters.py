"""What a tool's JSON schema says about each parameter, in one shape, whatever dialect the schema is written in.

Tolerated beside standard JSON schema: ``$ref``, ``anyOf`` with null, and the type names of other languages (``dict``,
``float``, ``tuple``, ``String``, ``ArrayList``, ``any``). Knows nothing of requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from ..words import FAINT, STOP, identifier_words, stem, tokenize, word_set
from .numerals import unit_in

__all__ = ["Option", "Parameter", "Role", "parameters_of", "resolve"]

Kind = Literal["string", "integer", "number", "boolean", "array", "object", "any"]
Role = Literal[
    "", "date", "time", "year", "email", "url", "phone", "place", "person", "company", "text", "path", "language",
    "currency", "unit", "code", "id", "title", "color", "species", "instrument", "material", "genre", "transport",
    "sport", "meal", "diet", "programming", "kind",
]  # fmt: skip

_KINDS: dict[str, Kind] = {
    "string": "string", "str": "string", "char": "string", "text": "string", "integer": "integer", "int": "integer",
    "long": "integer", "short": "integer", "byte": "integer", "bigint": "integer", "number": "number",
    "float": "number", "double": "number", "decimal": "number", "boolean": "boolean", "bool": "boolean",
    "array": "array", "list": "array", "tuple": "array", "arraylist": "array", "set": "array", "object": "object",
    "dict": "object", "hashmap": "object", "map": "object", "hashtable": "object",
}  # fmt: skip
_MAX_DEPTH = 6


@dataclass(frozen=True, slots=True)
class Option:
    """A value the schema names. ``closed``: nothing but the named values is allowed."""

    value: Any
    stems: tuple[str, ...]
    closed: bool


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, or one field of an object parameter (``path`` has then more than one part)."""

    path: tuple[str, ...]
    required: bool
    kind: Kind
    role: Role
    words: tuple[str, ...]
    """Stems of the name that carry meaning."""
    described: tuple[str, ...]
    """Stems of the description that carry meaning, at most 40."""
    description: str
    options: tuple[Option, ...] = ()
    item: Parameter | None = None
    fields: tuple[Parameter, ...] = ()
    unit: str = ""
    pattern: re.Pattern[str] | None = None
    format: str = ""
    minimum: float | None = None
    maximum: float | None = None
    default: Any = None
    position: int = 0
    """1 for ``first``, ``side1``, ``from``; 2 for ``second``, ``side2``, ``to``; 0 when the name says nothing."""

    @property
    def name(self) -> str:
        """As the schema calls it."""
        return self.path[-1]

    @property
    def family(self) -> tuple[str, ...]:
        """The name without what counts or orders: ``side1`` and ``side2``, ``start_date`` and ``end_date`` share it."""
        return tuple(word for word in self.words if not word.isdigit() and word not in _ORDERING)

    @property
    def is_numeric(self) -> bool:
        """A number, whole or not."""
        return self.kind in ("integer", "number")

    @property
    def is_closed(self) -> bool:
        """Only the named options are allowed."""
        return any(option.closed for option in self.options)


def parameters_of(schema: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """The parameters of a tool, in the schema's order. A schema that is not one gives none."""
    return _fields(schema, schema, (), True, 0)


def resolve(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """``schema`` with its ``$ref`` followed, and of an ``anyOf``, ``oneOf`` or ``allOf`` the first branch not null."""
    found: Mapping[str, Any] = schema if isinstance(schema, Mapping) else {}
    for _ in range(_MAX_DEPTH):
        reference = found.get("$ref")
        branches = next((found[key] for key in _BRANCHES if isinstance(found.get(key), list)), None)
        target: Any
        if isinstance(reference, str) and reference.startswith("#/"):
            target = root
            for part in reference[2:].split("/"):
                target = target.get(part) if isinstance(target, Mapping) else None
        elif branches:
            target = next((b for b in branches if isinstance(b, Mapping) and b.get("type") != "null"), None)
        else:
            break
        if not isinstance(target, Mapping):
            break
        found = {**target, **{key: value for key, value in found.items() if key not in ("$ref", *_BRANCHES)}}
    return found


_BRANCHES = ("anyOf", "oneOf", "allOf")


def _fields(
    schema: Mapping[str, Any], root: Mapping[str, Any], path: tuple[str, ...], required: bool, depth: int
) -> tuple[Parameter, ...]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or depth > _MAX_DEPTH:
        return ()
    named = schema.get("required")
    wanted = set(map(str, named)) if isinstance(named, (list, tuple)) else set()
    return tuple(
        _parameter((*path, str(name)), resolve(part, root), root, required and str(name) in wanted, depth)
        for name, part in properties.items()
    )


def _parameter(
    path: tuple[str, ...], schema: Mapping[str, Any], root: Mapping[str, Any], required: bool, depth: int
) -> Parameter:
    kind = _kind(schema)
    description = " ".join(str(schema.get(key) or "") for key in ("description",)).strip()
    name_words = identifier_words(path[-1])
    tokens = tokenize(description[:1500], 200)
    item = None
    if kind == "array":
        inner = resolve(schema.get("items"), root)
        if isinstance(schema.get("prefixItems"), list) and schema["prefixItems"]:
            inner = resolve(schema["prefixItems"][0], root)
        if inner and depth < _MAX_DEPTH:
            item = _parameter(path, {"description": description, **inner}, root, required, depth + 1)
    options = _options(schema, description, kind)
    role = _role(name_words, description, kind if item is None else item.kind, str(schema.get("format") or ""))
    return Parameter(
        path=path,
        required=required,
        kind=kind,
        role=role,
        words=tuple(stem(w) for w in name_words if w not in STOP or w in ("to", "from", "over", "under"))
        or tuple(name_words),
        described=tuple(dict.fromkeys(t.stem for t in tokens if t.is_content and t.lower not in FAINT))[:40],
        description=description,
        options=options,
        item=item,
        fields=_fields(schema, root, path, required, depth + 1) if kind == "object" else (),
        unit=_unit(name_words, description),
        pattern=_pattern(schema.get("pattern")),
        format=str(schema.get("format") or ""),
        minimum=_bound(schema, "minimum", "exclusiveMinimum"),
        maximum=_bound(schema, "maximum", "exclusiveMaximum"),
        default=schema.get("default"),
        position=_position(name_words, description),
    )


def _kind(schema: Mapping[str, Any]) -> Kind:
    named = schema.get("type")
    if isinstance(named, list):
        named = next((kind for kind in named if kind != "null"), None)
    if isinstance(named, str):
        return _KINDS.get(named.lower().split("<")[0].split("[")[0].rsplit(".", 1)[-1], "any")
    values = schema.get("enum")
    if isinstance(values, list) and values:
        return "integer" if all(isinstance(v, int) for v in values) else "string"
    return "object" if "properties" in schema else "array" if "items" in schema else "any"


def _bound(schema: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        value = schema.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    return None


def _pattern(text: Any) -> re.Pattern[str] | None:
    if not isinstance(text, str) or not text or len(text) > 500:
        return None
    try:
        return re.compile(text)
    except re.error:
        return None


_QUOTED = re.compile(r"[\"'‘“`]([^\"'’”`]{1,40})[\"'’”`]")
_EXAMPLES = re.compile(
    r"(?:e\.g\.?,?|for example,?|such as|like|options(?: are)?:?|one of:?|can be|could be|either|supported[^:.]*:|"
    r"possible values(?: are)?:?|choices:?|choose from)\s+([^.()]{2,160})",
    re.IGNORECASE,
)


def _options(schema: Mapping[str, Any], description: str, kind: Kind) -> tuple[Option, ...]:
    values = schema.get("enum")
    if not isinstance(values, list) and "const" in schema:
        values = [schema["const"]]
    if isinstance(values, list):
        return tuple(Option(v, _phrase(v), True) for v in values[:200] if v is not None)
    if kind not in ("string", "array", "any"):
        return ()
    named = [m.group(1) for m in _QUOTED.finditer(description)]
    for match in _EXAMPLES.finditer(description):
        if len(named) > 20:
            break
        named += [
            re.sub(r"^(?:and|or|the|a|an)\s+", "", part.strip(" '\"‘’“”`"))
            for part in re.split(r",|/|;|\bor\b|\band\b", match[1])
        ]
    if isinstance(schema.get("default"), str):
        named.append(schema["default"])
    found: dict[tuple[str, ...], Option] = {}
    for name in named:
        phrase = _phrase(name)
        if phrase and len(name) <= 40 and len(phrase) <= 4 and not {"etc"} & set(phrase):
            found.setdefault(phrase, Option(name, phrase, False))
    return tuple(found.values())


def _phrase(value: Any) -> tuple[str, ...]:
    if isinstance(value, bool):
        return (str(value).lower(),)
    return tuple(stem(w) for w in identifier_words(str(value))) or (str(value),)


def _unit(name_words: list[str], description: str) -> str:
    if name_words and len(name_words) > 1:
        unit = unit_in("in " + name_words[-1])
        if unit:
            return unit
    elif name_words:
        unit = unit_in("in " + name_words[0]) if len(name_words[0]) > 3 else ""
        if unit:
            return unit
    first = re.split(r"(?i)\bdefault", description[:400])[0]
    return unit_in(re.sub(r"(?i)\be\.g\..*", "", first))


_ROLES: tuple[tuple[Role, str, str], ...] = (
    # role, words of the name, words of the description that tell it where the name does not
    ("email", "email mail", "email address|e-mail address"),
    ("url", "url uri link website webpage href", r"\burl\b"),
    ("phone", "phone telephone mobile msisdn", "phone number|telephone number"),
    (
        "date",
        "date day deadline birthday dob checkin checkout",
        "yyyy-mm|format: y|date of|the date|start date|end date",
    ),
    ("time", "time hour", "hh:mm|time of day|in 24"),
    ("path", "path file filename filepath folder directory dataset", "path to|file path|file name"),
    ("currency", "currency", r"currency (?:code|to|from)|the currency"),
    ("unit", "unit units", "unit of|units of|unit for|units for|units in"),
    ("language", "language lang locale", "language (?:of|in|to|for)|target language"),
    (
        "code",
        "function equation expression formula polynomial code query sql regex",
        "mathematical (?:function|expression)",
    ),
    ("text", "text message sentence content body paragraph prompt comment description note review string input summary",
     "the text|text to|message to|sentence to|piece of text|the string"),
    ("id", "id identifier code number isbn sku ticket docket symbol ticker", r"\bid\b|identifier|ticker symbol"),
    ("place", "location city country state place region area address county destination origin district town venue "
     "departure arrival neighborhood zip", r"\bcity\b|\bcountry\b|the location|geographic|address of|\bstate\b"),
    ("company", "company firm business brand employer organization organisation manufacturer", "company"),
    ("person", "person author actor artist player director patient customer user employee recipient contact leader "
     "composer singer guest defendant plaintiff painter scientist sculptor lawyer",
     r"name of the (?:person|player|actor|author|artist|director|patient|user|customer|employee|composer|leader|"
     r"scientist|sculptor|lawyer|defendant|singer|musician|king)|person's name|full name"),
    ("color", "color colour", "color|colour"),
    ("instrument", "instrument", "instrument"),
    ("material", "material", r"\bmaterial\b"),
    ("genre", "genre", "genre"),
    ("transport", "transportation transport", "mode of transport|transportation"),
    ("sport", "sport", r"\bsport\b"),
    ("species", "species animal organism", "species|animal"),
    ("meal", "meal", r"\bmeal\b"),
    ("diet", "diet dietary", "dietary"),
    ("kind", "type kind category style", ""),
    ("title", "title book movie film song album event game topic subject name keyword term", "title of|name of"),
)  # fmt: skip


def _role(name_words: list[str], description: str, kind: Kind, format: str) -> Role:
    if format in ("date", "date-time", "email", "uri", "time"):
        return {"date": "date", "date-time": "date", "email": "email", "uri": "url", "time": "time"}[format]  # type: ignore[return-value]
    if "year" in name_words:
        return "year"
    if kind in ("integer", "number", "boolean"):
        return "year" if re.search(r"(?i)\bthe (?:\w+ )?year (?:of|in|to|for|being|when)|year of", description) else ""
    lower = description.lower()[:300]
    for part in (name_words[-1:], name_words):
        place = min((_role_place(word) for word in part), default=_NO_ROLE)
        if place < _NO_ROLE:
            role: Role = _ROLES[place][0]
            return role if role != "title" or not _described_role(lower) else _described_role(lower)
    return _described_role(lower)


_NO_ROLE = len(_ROLES)
_ROLE_PLACES = {name: place for place, entry in reversed(list(enumerate(_ROLES))) for name in entry[1].split()}


def _role_place(word: str) -> int:
    """Which of the roles a word of a name tells, the first; in the plural too."""
    own = _ROLE_PLACES.get(word, _NO_ROLE)
    return min(own, _ROLE_PLACES.get(word[:-1], _NO_ROLE)) if word.endswith("s") else own


@lru_cache(maxsize=2048)
def _described_role(lower: str) -> Role:
    for role, _, pattern in _ROLES:
        if role not in ("title", "kind") and re.search(pattern, lower):
            return role
    return ""


_FIRST = word_set("first start from origin source base begin initial departure lower min minimum since begin")
_SECOND = word_set("second end to destination target final arrival upper max maximum until stop dest")


_ORDERING = frozenset(stem(word) for word in _FIRST | _SECOND)


def _position(name_words: list[str], description: str) -> int:
    for word in name_words:
        if word in _FIRST:
            return 1
        if word in _SECOND:
            return 2
    tail = name_words[-1] if name_words else ""
    if tail.isdigit() and len(tail) < 3:
        return int(tail)
    match = re.search(r"(?i)\b(first|second|third|start(?:ing)?|end(?:ing)?|destination)\b", description[:120])
    if match:
        word = match[1].lower()
        return {"first": 1, "second": 2, "third": 3}.get(word, 1 if word.startswith("start") else 2)
    return 0

"""A model's plan as data: read from its text, written down, and checked against the tools before anything runs.

What runs a plan is in :mod:`brain.graph`. This module knows nothing of runs or models.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeVar

from specialists import InvalidArguments
from specialists.strict_json import loads

from .events import Plan, PlanStep, ToolSchema

__all__ = ["MOST_STEPS", "PLAN_SCHEMA", "SUBTASK", "plan_problems", "put", "read_plan", "told", "write_plan"]

T = TypeVar("T")

MOST_STEPS = 64
"""Steps that one plan may have."""
SUBTASK = "subtask"
"""What the call of a subtask is called."""
_LONGEST_ID = 64
_DEEPEST = 100
"""How deep arguments may nest."""
_MOST_REFERENCES = 256
"""References that one step may have: each may stand for much."""
_TOLD = 12
"""Problems that are told one by one."""

PLAN_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "steps": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "description": "a short name of its own: a, b, c"},
                    "tool": {"type": "string", "description": "the tool to call; leave it out for a subtask"},
                    "task": {"type": "string", "description": "for a subtask: what is to be found out, in words"},
                    "arguments": {"type": "object", "description": "the arguments that are known now"},
                    "references": {
                        "type": "object",
                        "description": "arguments that are an earlier step's value: parameter name to step id, or to a"
                        " part of its value: 'a.rows[0]'",
                        "additionalProperties": {"type": "string"},
                    },
                    "after": {"type": "array", "items": {"type": "string"}, "description": "steps that come first"},
                },
                "required": ["id"],
            },
        },
        "answer": {
            "type": ["string", "null"],
            "description": "the step whose value, as it is, answers the request; null where words must be found for it",
        },
    },
    "required": ["steps"],
}
"""The form in which a model is asked for a plan."""

_FENCED = re.compile(r"\s*```\w*\s(.*)```\s*", re.DOTALL)
_PLACE = re.compile(r"([^\W\d]\w*)((?:\.[^\W\d]\w*|\[[0-9]{1,4}\])*)")
_PATH = re.compile(r"(?:\.[^\W\d]\w*|\[[0-9]{1,9}\])+")
_STEP = re.compile(r"\.([^\W\d]\w*)|\[([0-9]+)\]")
_KEYS = {"id", "tool", "task", "arguments", "references", "after"}


def read_plan(text: str, done: Mapping[str, str] | None = None) -> Plan:
    """The plan that ``text`` says: JSON, also between code fences with words around them.

    ``done``: handles of what steps of earlier plans gave, by their ids; a reference to one becomes its handle.

    Raises ``ValueError`` with every problem of form: ids that are there twice, references to steps that are not,
    arguments that are given twice, cycles.
    """
    found = _FENCED.fullmatch(text) or (None if text.lstrip().startswith("{") else _FENCED.search(text))
    try:
        data = loads(found[1] if found else text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the plan is no JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("steps"), list):
        raise ValueError("a plan is an object with a list of steps")
    raw = data["steps"]
    if len(raw) > MOST_STEPS:
        raise ValueError(f"the plan has {len(raw)} steps, and {MOST_STEPS} is the most; plan the first part")
    problems: list[str] = []
    places: dict[str, int] = {}
    for place, step in enumerate(raw):
        id = step.get("id") if isinstance(step, dict) else None
        if not isinstance(id, str) or not id.strip():
            problems.append(f"step {place + 1} has no id")
        elif len(id) > _LONGEST_ID or not id.isprintable():  # it stands in messages, and is drawn in terminals
            problems.append(f"the id of step {place + 1} is longer than {_LONGEST_ID} characters, or cannot be printed")
        elif id in places:
            problems.append(f"two steps have the id {id!r}")
        else:
            places[id] = place
    if problems:
        raise ValueError(told(problems))
    steps = [_read_step(step, places, done or {}, problems) for step in raw]
    answer = data.get("answer")
    if answer is not None and (not isinstance(answer, str) or answer not in places):
        problems.append(f"the answer is to be step {_short(str(answer))!r}, which the plan does not have")
    try:
        TopologicalSorter({place: step.needs for place, step in enumerate(steps)}).prepare()
    except CycleError as error:
        ids = list(places)
        problems.append(f"the steps {' -> '.join(ids[place] for place in error.args[1])} wait for each other")
    if problems:
        raise ValueError(told(problems))
    return Plan(tuple(steps), answer=None if answer is None else places[answer])


def write_plan(plan: Plan) -> str:
    """``plan`` as the JSON text that :func:`read_plan` reads."""
    ids = [step.id or f"s{place + 1}" for place, step in enumerate(plan.steps)]
    steps = []
    for id, step in zip(ids, plan.steps, strict=True):
        written: dict[str, Any] = {"id": id}
        written |= {"tool": step.tool} if step.task is None else {"task": step.task}
        written["arguments"] = dict(step.arguments)
        if step.references:
            written["references"] = {
                name: ids[source] + step.paths.get(name, "") for name, source in step.references.items()
            }
        if step.after:
            written["after"] = [ids[place] for place in step.after]
        steps.append(written)
    answer = None if plan.answer is None else ids[plan.answer]
    return json.dumps({"steps": steps, "answer": answer}, ensure_ascii=False)


def plan_problems(
    plan: Plan, tools: Mapping[str, ToolSchema], check: Callable[[str, Mapping[str, Any]], object]
) -> list[str]:
    """What speaks against running ``plan``: unknown tools, arguments missing, unknown or of another type, references
    whose value cannot fit. ``check(tool, arguments)`` raises ``InvalidArguments`` for a call that is known whole, and
    for one with a handle that nothing has."""
    problems: list[str] = []
    for place, step in enumerate(plan.steps):
        name = f"step {step.id or place + 1}"
        if step.task is not None:
            continue
        tool = tools.get(step.tool)
        if tool is None:
            nearest = difflib.get_close_matches(step.tool, tools, 3) or list(tools)[:8]
            known = f"the nearest are {', '.join(nearest)}" if nearest else "there are none"
            problems.append(f"{name}: there is no tool {_short(step.tool)!r}; {known}")
        elif not step.references:
            try:
                check(step.tool, step.arguments)
            except InvalidArguments as error:
                problems.append(f"{name}: {error}")
        else:
            problems += [f"{name}: {problem}" for problem in _call_problems(plan, step, tool, tools)]
    return problems


def put(arguments: dict[str, Any], place: str, value: Any) -> None:
    """Put ``value`` at ``place`` (``name``, ``name[0]``, ``name.field``) into ``arguments``, making lists and objects
    as needed; list items in their order. Raises ``ValueError`` where something stands already (but a ``None``), or is
    in the way."""
    name, steps = _split(place)
    holder: Any = arguments
    key: str | int = name
    for field, index in _STEP.findall(steps):
        holder = _inside(holder, key, {} if field else [], place)
        key = field or int(index)
    if _inside(holder, key, value, place) is not value:
        if holder[key] is not None:
            raise ValueError(f"{_short(place)!r} is given twice")
        holder[key] = value


def _inside(holder: Any, key: str | int, new: Any, place: str) -> Any:
    """What stands at ``key``; where nothing does, ``new`` is put there."""
    if isinstance(key, str) and isinstance(holder, dict):
        return holder.setdefault(key, new)
    if isinstance(key, int) and isinstance(holder, list) and key <= len(holder):
        if key == len(holder):
            holder.append(new)
        return holder[key]
    raise ValueError(f"nothing can be put at {_short(place)!r}")


def _read_step(
    raw: Mapping[str, Any], places: Mapping[str, int], done: Mapping[str, str], problems: list[str]
) -> PlanStep:
    id, tool, task = raw["id"], raw.get("tool"), raw.get("task")
    name = f"step {_short(id)}"
    # Many write an empty text for what there is not.
    tool, task = (None if isinstance(each, str) and not each.strip() else each or None for each in (tool, task))
    if (tool is None) == (task is None) or not isinstance(tool or task, str):
        problems.append(f"{name} has a tool or a task, one of the two, as text")
        return PlanStep("", {}, id=id)
    if unknown := raw.keys() - _KEYS:
        problems.append(f"{name} has {_short(min(unknown))!r}, which no step has")
    arguments, written, after = raw.get("arguments") or {}, raw.get("references") or {}, raw.get("after") or []
    if not isinstance(arguments, dict) or not isinstance(written, dict) or not isinstance(after, list):
        problems.append(f"{name}: arguments and references are objects, after is a list")
        return PlanStep(tool or SUBTASK, {}, id=id, task=task)
    if _is_deep(arguments):
        problems.append(f"{name}: its arguments nest more than {_DEEPEST} deep")
        return PlanStep(tool or SUBTASK, {}, id=id, task=task)
    filled = json.loads(json.dumps(arguments))
    references: dict[str, int] = {}
    paths: dict[str, str] = {}
    given = set(arguments)
    spread = _spread(written)
    if len(spread) > _MOST_REFERENCES:
        problems.append(f"{name} has {len(spread)} references, and {_MOST_REFERENCES} is the most")
    for place, said in spread[:_MOST_REFERENCES]:
        if not place or (_PLACE.fullmatch(place) is None and any(sign in place for sign in ".[]")):
            problems.append(f"{name}: {_short(place)!r} is no parameter")
            continue
        source, path = _source(said, places)
        before, rest = _source(said, done) if source is None else (None, "")
        if source is None and before is None:
            problems.append(f"{name}: {_short(place)!r} refers to {_short(str(said))!r}, and no step has that id")
            continue
        try:
            put(filled, place, None if before is None else before + rest)
        except ValueError as error:
            problems.append(f"{name}: {error}")
        if source is None:
            given.add(_split(place)[0])
        else:
            references[place] = source
            if path:
                paths[place] = path
    earlier = []
    for said in after:
        if isinstance(said, str) and said in places:
            earlier.append(places[said])
        elif not isinstance(said, str) or said not in done:
            problems.append(f"{name} comes after {_short(str(said))!r}, and no step has that id")
    own = places[id]
    if own in references.values() or own in earlier:
        problems.append(f"{name} waits for itself")
    # Beside what is given, in a list, there are holes for what is referred to.
    known = {key: value for key, value in filled.items() if key in given and key not in references}
    return PlanStep(tool or SUBTASK, known, references, paths, tuple(earlier), task, id)


def _spread(references: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """A list of references is one for each item of a list; those of one parameter are in the order of their places."""
    found: list[tuple[str, Any]] = []
    for place, said in references.items():
        if isinstance(said, list):
            found += [(f"{place}[{index}]", each) for index, each in enumerate(said)]
        else:
            found.append((place, said))
    first: dict[str, int] = {}
    for index, (place, _) in enumerate(found):
        first.setdefault(_split(place)[0], index)

    def order(entry: tuple[str, Any]) -> tuple[int, list[tuple[str, int]]]:
        name, steps = _split(entry[0])
        return first[name], [(field, int(index or 0)) for field, index in _STEP.findall(steps)]

    return sorted(found, key=order)


def _source(said: Any, places: Mapping[str, T]) -> tuple[T | None, str]:
    """The step that a reference names, and the path within its value. Ids may themselves have dots."""
    if not isinstance(said, str):
        return None, ""
    if said in places:
        return places[said], ""
    for id in sorted(places, key=len, reverse=True):
        path = said.removeprefix(id)
        if path != said and _PATH.fullmatch(path):
            return places[id], path
    return None, ""


def _call_problems(plan: Plan, step: PlanStep, tool: ToolSchema, tools: Mapping[str, ToolSchema]) -> list[str]:
    schema = tool.parameters
    properties, problems = schema.get("properties", {}), []
    given = {*step.arguments, *(_split(place)[0] for place in step.references)}
    for missing in (name for name in schema.get("required", ()) if name not in given):
        problems.append(f"{tool.name} needs {missing!r}, which is neither given nor referred to")
    if schema.get("additionalProperties") is False:
        problems += [
            f"{tool.name} has no parameter {_short(name)!r}" for name in sorted(given) if name not in properties
        ]
    for name, value in step.arguments.items():
        if name in properties and not _has_handle(value):
            wanted = _types(properties[name], schema)
            lax = isinstance(value, str) and wanted is not None and bool(wanted & {"integer", "number", "boolean"})
            if wanted is not None and _type_of(value) not in wanted and not lax:  # "3" may be read as a number
                problems.append(f"{name!r} of {tool.name} is {_listed(wanted)}, not {_type_of(value)}")
    for place, source in step.references.items():
        before = plan.steps[source]
        name, steps = _split(place)
        returns = None if before.task is not None else tools[before.tool].returns if before.tool in tools else None
        if returns is None or name not in properties:
            continue
        problem = _clash(returns, step.paths.get(place, ""), properties[name], steps, schema)
        if problem:
            problems.append(
                f"{place!r} of {tool.name} cannot be the value of step {before.id or source + 1}: {problem}"
            )
    return problems


def _clash(
    returns: Mapping[str, Any], path: str, parameter: Mapping[str, Any], steps: str, root: Mapping[str, Any]
) -> str | None:
    """Why a value of the one schema certainly does not fit the other."""
    given, problem = _at(returns, path, returns)
    if given is None:
        return problem
    wanted, problem = _at(parameter, steps, root)
    if wanted is None:
        return problem and f"of the parameter, {problem}"
    return _misfit(given, returns, wanted, root)


def _at(schema: Mapping[str, Any], path: str, root: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str | None]:
    """The schema of the part at ``path``; where there is none, why there cannot be such a part, if that is known."""
    found: Any = schema
    for field, index in _STEP.findall(path):
        found = _resolved(found, root)
        kinds = None if found is None else _types(found, root)
        if found is None or kinds is None:
            return None, None
        if ("object" if field else "array") not in kinds:
            return None, f"it is {_listed(kinds)}, and has no {field or f'[{index}]'!r}"
        if not field:
            found = found.get("items")
            continue
        named, others = found.get("properties", {}), found.get("additionalProperties")
        if named and field not in named and not others:
            return None, f"it has no {_short(field)!r}, only {', '.join(list(named)[:12])}"
        found = named.get(field, others)
    return (found, None) if isinstance(found, Mapping) else (None, None)


def _misfit(
    given: Any, given_root: Mapping[str, Any], wanted: Any, wanted_root: Mapping[str, Any], depth: int = 0
) -> str | None:
    one, other = _types(given, given_root), _types(wanted, wanted_root)
    if one is None or other is None or depth > 4:
        return None
    numbers = {"integer", "number"}
    if not one & other and not (numbers & one and numbers & other):
        return f"it is {_listed(one)}, and {_listed(other)} is wanted"
    given, wanted = _resolved(given, given_root), _resolved(wanted, wanted_root)
    one, other = one - {"null"}, other - {"null"}
    if given is None or wanted is None or len(one) != 1 or one != other:
        return None
    if one == {"array"}:
        inner = _misfit(given.get("items"), given_root, wanted.get("items"), wanted_root, depth + 1)
        return inner and f"of its items, {inner}"
    has, wants = given.get("properties"), wanted.get("properties", {})
    if one != {"object"} or has is None or given.get("additionalProperties"):
        return None
    for name in wanted.get("required", ()):
        if name not in has:
            return f"it has no {_short(name)!r}, only {', '.join(list(has)[:12])}"
    inners = (
        (name, _misfit(has[name], given_root, wants[name], wanted_root, depth + 1)) for name in wants if name in has
    )
    return next((f"of its {_short(name)!r}, {inner}" for name, inner in inners if inner), None)


def _resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What ``schema`` refers to, without ``null`` beside it; ``None``: it is one of several, or nobody can say."""
    for _ in range(16):
        if not isinstance(schema, Mapping):
            return None
        options = schema.get("anyOf", schema.get("oneOf"))
        if "$ref" in schema:
            schema = root.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2])
        elif options is None:
            return None if {"allOf", "not", "if"} & schema.keys() else schema
        else:
            inner = [each for each in options if each != {"type": "null"}]
            schema = inner[0] if len(inner) == 1 else None
    return None


def _types(schema: Any, root: Mapping[str, Any], depth: int = 0) -> set[str] | None:
    """The JSON types that a schema allows; ``None``: nobody can say."""
    if not isinstance(schema, Mapping) or depth > 8:
        return None
    for group in ("anyOf", "oneOf"):
        if group in schema:
            parts = [_types(each, root, depth + 1) for each in schema[group]]
            return None if any(part is None for part in parts) else set().union(*(part or set() for part in parts))
    if "$ref" in schema:
        inner = root.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2])
        return _types(inner, root, depth + 1)
    if "allOf" in schema or "not" in schema or "if" in schema:
        return None
    if "enum" in schema:
        return {_type_of(value) for value in schema["enum"]} | (
            {"integer"} if any(isinstance(value, float) for value in schema["enum"]) else set()
        )
    if "const" in schema:
        return {_type_of(schema["const"])}
    kind = schema.get("type")
    kinds = {kind} if isinstance(kind, str) else set(kind) if isinstance(kind, list) else None
    return kinds | {"integer"} if kinds and "number" in kinds else kinds


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    kinds: Sequence[tuple[type, str]] = ((float, "number"), (str, "string"), (list, "array"), (dict, "object"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "object")


def _has_handle(value: Any) -> bool:
    if isinstance(value, str):
        return "@v" in value
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(_has_handle(part) for part in parts)


def _split(place: str) -> tuple[str, str]:
    found = _PLACE.fullmatch(place)
    return (found[1], found[2]) if found else (place, "")


def _is_deep(value: Any) -> bool:
    layer = [value]
    for _ in range(_DEEPEST):
        layer = [part for each in layer for part in _parts(each)]
        if not layer:
            return False
    return True


def _parts(value: Any) -> list[Any]:
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [part for part in parts if isinstance(part, dict | list)]


def told(problems: Sequence[str]) -> str:
    """The problems of a plan as one text, for whoever is to mend it."""
    more = len(problems) - _TOLD
    return "; ".join([*problems[:_TOLD], *([f"and {more} more"] if more > 0 else [])])


def _listed(kinds: set[str]) -> str:
    return " or ".join(sorted(kinds - {"integer"} if "number" in kinds else kinds))


def _short(text: str) -> str:
    return text if len(text) <= 64 else f"{text[:61]}..."

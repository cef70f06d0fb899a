"""The rules: what an answer must be, told from the question as it was asked. Sound and complete for the task.

An answer passes if and only if every variable has a value, a given one its own, a restricted one an allowed one, and no
two variables of a group are equal. A problem with several answers: each of them passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specialists import Verdict

__all__ = ["is_answer", "is_right"]


def is_answer(arguments: Mapping[str, Any], value: object) -> Verdict:
    """Passes ``value`` if it is a list of one number a variable that keeps all that ``arguments`` ask for."""
    values, variables = arguments["values"], arguments["variables"]
    if not isinstance(value, list) or len(value) != variables:
        return Verdict.failed(f"the answer is not a list of {variables} values")
    for variable, chosen in enumerate(value):
        if type(chosen) is not int or not 0 <= chosen < values:
            return Verdict.failed(f"variable {variable} has no value from 0 to {values - 1}")
    outside = {*arguments.get("given", ()), *arguments.get("allowed", ())}.union(*arguments["groups"]) - {
        *range(variables)
    }
    if outside:
        return Verdict.failed(f"the question names the variable {min(outside)}, which is none")
    for variable, wanted in arguments.get("given", {}).items():
        if value[variable] != wanted:
            return Verdict.failed(f"variable {variable} is given the value {wanted} and has {value[variable]}")
    for variable, choice in arguments.get("allowed", {}).items():
        if value[variable] not in choice:
            return Verdict.failed(f"variable {variable} has the value {value[variable]}, which is not allowed for it")
    for number, group in enumerate(arguments["groups"]):
        holders: dict[int, int] = {}
        for variable in group:
            other = holders.setdefault(value[variable], variable)
            if other != variable:
                return Verdict.failed(
                    f"variables {other} and {variable} of groups[{number}] both have the value {value[variable]}"
                )
    return Verdict.passed()


def is_right(arguments: Mapping[str, Any], expected: object, value: object) -> bool:
    """Whether ``value`` is an answer: the expected one, or any other where there are several."""
    return is_answer(arguments, value).status == "passed"

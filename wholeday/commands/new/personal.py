"""Point out the columns that hold personal data, by their names and by the form of their values."""

import re

from wholeday.commands.new.model import Field, Model
from wholeday.commands.new.names import to_snake
from wholeday.commands.new.observe import MAIL, PHONE, Seen

PERSONAL = re.compile(
    r"e_?mail|phone|mobile|(first|last|full|family|given|middle|maiden|sur|user|nick|display|real)_?name|"
    r"birth|(^|_)dob(_|$)|(^|_)age$|gender|(^|_)ssn(_|$)|passport|street|address|postal|zip|postcode|latitude|longitude|"
    r"(^|_)ip(_|$)|avatar|iban"
)
PEOPLE = re.compile(
    r"user|customer|contact|person|people|member|employee|author|owner|patient|student|client|lead|subscriber|guest|"
    r"buyer|recipient|sender|assignee|reporter|requester|requestor|creator|approver|attendee|invitee|candidate|applicant|"
    r"passenger|tenant|donor|profile|billing|shipping"
)
NAME = re.compile(r"(^|_)(name|login)$|(^|_)name_(first|last|given|family|middle|full|formatted)$")
NO_PERSON = re.compile(r"(company|organi[sz]ation|team|group|project|product|id|status|category|country|file)_name$")

VALUES = ("value", "number", "text")  # columns of items that hold what their list is named after


def find_personal(model: Model, seen: Seen) -> list[str]:
    """List the columns that look personal. A column of a child table has the name of its list in front."""
    return [*_list(model, seen, bool(PEOPLE.search(to_snake(model.class_name))))]


def _list(model: Model, seen: Seen, are_people: bool, lists: tuple[str, ...] = ()) -> list[str]:
    """`lists` are the names of the lists around the model, the outermost first."""
    found = []
    is_list_personal = bool(lists and PERSONAL.search(lists[-1]))
    for column in model.fields:
        place = _find(column, seen)
        if column.children and place and place.items:
            found += _list(column.children, place.items, bool(PEOPLE.search(column.name)), (*lists, column.name))
        elif _is_personal(column, place, are_people) or (is_list_personal and column.name in VALUES):
            found.append(".".join((*lists, column.name)))
    return found


def _is_personal(column: Field, place: Seen | None, are_people: bool) -> bool:
    names = "_".join(to_snake(name) for name in column.path)
    if column.type.name not in ("str", "date", "datetime", "float", "Json", "int", "list[str]"):
        return False
    if place and 2 * (place.forms[MAIL] + place.forms[PHONE]) >= place.present > 0:
        return True
    is_name = bool(NAME.search(names)) and not NO_PERSON.search(names) and (are_people or bool(PEOPLE.search(names)))
    return is_name or bool(PERSONAL.search(names))


def _find(column: Field, seen: Seen) -> Seen | None:
    place: Seen | None = seen
    for name in column.path:
        place = place.fields.get(name) if place else None
    return place if column.path else None

"""Turns messages of the option parser (jsonargparse) into sentences without names of Python types."""

import re
from collections.abc import Iterable

from crossray.errors import choose, did_you_mean

#: Name of each type in the parser's messages, and in ours.
_TYPES = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "Path": "a path",
    "pathlib.Path": "a path", "pathlib._local.Path": "a path", "NoneType": "null", "list": "a list in brackets",
    "tuple": "a list in brackets", "dict": "a mapping in braces",
}  # fmt: skip
_CLASS = re.compile(r"<class '([\w.]+)'>")

_KEY = r'Parser key "([^"]*)": '
_WRONG_NAME = re.compile(_KEY + r"Expected a typing\.Literal\[(.*)\]\. Got value: ?(.*)")
_WRONG_TYPE = re.compile(_KEY + r"Expected a (?:<class '([\w.]+)'>|tuple with (\d+) elements)\. Got value: ?(.*)")
# an option that may be left out: a type, or nothing
_OPTIONAL = re.compile(
    _KEY + r"Does not validate against any of the Union subtypes Subtypes: \[(.*), <class 'NoneType'>\] .*"
    "Given value: ?(.*)"
)
_NO_FIELD = re.compile(rf"(?:{_KEY}O|Group '([^']*)' does not accept o)ption '([^']*)'(?: is not accepted)?")
_SECTION = re.compile(_KEY + "Unable to load config .*")
_UNRECOGNIZED = re.compile(r"unrecognized arguments: ((\S+?)(?:[ =].*)?)")
_NO_COMMAND = re.compile(r"argument (?:command|source): invalid choice: '(.*)' \(choose from (.*)\)")
_NO_SUBCOMMAND = re.compile(r'expected "[\w.]+" to be one of \{(.*)\}, but it was not provided')
_NO_VALUE = re.compile(r"argument (--\S*): expected (?:one|at least one) argument")


def plain_message(message: str, names: Iterable[str], remedy: str, prefix: str = "") -> str:
    """Return a message of the parser as one sentence that names the field, its value and the remedy.

    Args:
        message: message of the parser.
        names: existing options or fields, such as "trainer.max_epochs", to suggest for a misspelled one.
        remedy: where all of them are listed, for messages without a specific remedy.
        prefix: prefix of a field name, such as "--".

    Returns:
        The sentence, without its period.
    """
    message = re.sub(r"Problem with given class_path '[^']*': ", "", " ".join(message.split()).rstrip("."))
    message = re.sub(f"(?:{_KEY}){{2,}}", _joined, message)
    if found := _OPTIONAL.fullmatch(message):
        message = f'Parser key "{found[1]}": Expected a {found[2]}. Got value: {found[3]}'
    if found := _WRONG_NAME.fullmatch(message):
        allowed = re.findall(r"'([^']*)'", found[2])
        if found[3] in allowed:  # 32 where "32" is meant
            return f"{prefix}{found[1]} is a number; put it in quotation marks: '{found[3]}'"
        return f"{prefix}{found[1]} is '{found[3]}'; {choose(found[3], allowed)}"
    if found := _WRONG_TYPE.fullmatch(message):
        needed = f"a list of {found[3]} values" if found[3] else _TYPES.get(found[2], found[2])
        return f"{prefix}{found[1]} is '{found[4]}'; give {needed}"
    if found := _NO_FIELD.fullmatch(message):
        field = f"{found[1] or found[2]}.{found[3]}"
        return f"there is no field '{field}'{_meant(field, names)}; {remedy}"
    if found := _SECTION.fullmatch(message):
        return f"{prefix}{found[1]} is a section and takes no value; set one of its fields, as in --{found[1]}.FIELD"
    if found := _UNRECOGNIZED.fullmatch(message):
        if not found[2].startswith("-"):
            return f"the argument '{found[1]}' is not expected; {remedy}"
        return f"there is no option {found[2]}{_meant(found[2].lstrip('-'), names, '--')}; {remedy}"
    if found := _NO_COMMAND.fullmatch(message):
        commands = re.findall(r"[\w-]+", found[2])
        return f"there is no command '{found[1]}'; {choose(found[1], commands)}"
    if found := _NO_SUBCOMMAND.fullmatch(message):
        return f"a command is missing: name one of {found[1].replace(',', ', ').replace('  ', ' ')}; {remedy}"
    if found := _NO_VALUE.fullmatch(message):
        return f"{found[1]} needs a value; {remedy}"
    return f"{_CLASS.sub(lambda name: _TYPES.get(name[1], name[1].rpartition('.')[2]), message)}; {remedy}"


def _meant(field: str, names: Iterable[str], prefix: str = "") -> str:
    """Suggest a field, preferably of the same section: the shared section name makes all fields look similar."""
    section, dot, _ = field.rpartition(".")
    of_section = [name for name in names if name.rpartition(".")[0] == section]
    if not of_section:
        return did_you_mean(field, names).replace("'", f"'{prefix}", 1)
    last = [name.rpartition(".")[2] for name in of_section]
    return did_you_mean(field.rpartition(".")[2], last).replace("'", f"'{prefix}{section}{dot}", 1)


def _joined(keys: re.Match[str]) -> str:
    """Join the keys of nested parsers into one field."""
    return f'Parser key "{".".join(re.findall(_KEY, keys[0]))}": '

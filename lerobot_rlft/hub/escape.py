"""Text that others wrote, as plain text of a card: neither Markdown nor HTML, and one line."""

import re
from typing import Any

ACTIVE = re.compile(
    r"[&<>`*\[\]|\\~$]"  # HTML, code, emphasis, links, tables, formulas
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; inside of a word it is a letter
    r"|(?<=:)/|(?<=www)\.|@"  # links without brackets
    r"|^[-+#=]|^\d+[.)]",  # headings and lists
    re.IGNORECASE,
)
LONGEST = 200


def one_text(value: Any) -> str:
    """A value as one line of printable text, without what hides or turns around other text."""
    return "".join(letter for letter in " ".join(str(value).split()) if letter.isprintable())


def escaped(value: Any) -> str:
    """A value as text of a Markdown page, with what Markdown or HTML would act on as character references."""
    return ACTIVE.sub(lambda match: "".join(f"&#{ord(c)};" for c in match[0]), one_text(value))


def escaped_texts(value: Any) -> Any:
    """A copy of JSON content with all its texts escaped."""
    if isinstance(value, dict):
        return {escaped(key): escaped_texts(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [escaped_texts(entry) for entry in value]
    return escaped(value) if isinstance(value, str) else value


def shortened(value: Any) -> str:
    """A value as one entry of a card's metadata, which YAML quotes where it must."""
    return one_text(value)[:LONGEST]

"""Change texts as the options of their column say."""

from typing import TYPE_CHECKING, Any

from wholeday.schema.columns import Column

if TYPE_CHECKING:
    import pyarrow as pa


def change_texts(array: "pa.Array[Any]", column: Column) -> "pa.Array[Any]":
    """Strip white space and change the case. A text that is empty then is null, if the column may be null."""
    import pyarrow.compute as pc

    options = column.options
    if options.strip_whitespace:
        array = pc.utf8_trim_whitespace(array)
        if column.is_nullable:
            array = pc.if_else(pc.equal(array, ""), None, array)
    if options.to_lower:
        array = pc.utf8_lower(array)
    return pc.utf8_upper(array) if options.to_upper else array

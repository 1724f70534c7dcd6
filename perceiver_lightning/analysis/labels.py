"""Text in pictures."""

from perceiver_lightning.names import shown


def as_label(text: str) -> str:
    """Text that matplotlib takes unchanged: dollars would be mathematics, and an underscore in front hides a label.

    What of a name is not UTF-8 is an escape.
    """
    text = shown(text)
    return ("\u200b" if text.startswith("_") else "") + text.replace("$", r"\$")

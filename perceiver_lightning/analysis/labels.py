"""Text in pictures."""


def as_label(text: str) -> str:
    """Text that matplotlib takes unchanged: dollars would be mathematics, and an underscore in front hides a label."""
    return ("\u200b" if text.startswith("_") else "") + text.replace("$", r"\$")

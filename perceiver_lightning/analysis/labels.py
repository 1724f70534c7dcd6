"""Text in pictures."""


def plain(text: str) -> str:
    """Text that matplotlib takes as it is: dollars would be mathematics, and an underscore in front hides a label."""
    return ("\u200b" if text.startswith("_") else "") + text.replace("$", r"\$")

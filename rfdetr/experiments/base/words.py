"""Words for numbers that several chapters say."""


def layers_in_words(depth: int) -> str:
    """E.g. "no decoder", "1 layer", "3 layers"."""
    return "no decoder" if not depth else f"{depth} layer{'s' if depth > 1 else ''}"

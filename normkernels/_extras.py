"""How what an installation lacks is named."""


def install(extra: str) -> str:
    """Where an extra comes from, in words: there is no release yet, so from a clone."""
    return f"pip install -e '.[{extra}]' in a clone of normkernels"

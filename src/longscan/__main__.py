"""The command line; written in full later."""


def main() -> int:
    return 0

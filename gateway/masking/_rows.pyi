from collections.abc import Callable

def mask_rows(
    data: bytes, rules: list[tuple[int, int, bytes]], value: Callable[[int, bytes], bytes]
) -> bytes: ...

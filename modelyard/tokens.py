"""How many tokens a text is, estimated without a tokenizer."""


def estimate_tokens(text: str) -> int:
    """Return about how many tokens `text` is to a current model; 0 only for an empty text.

    A token is some four characters of ASCII, two of an alphabet beside it (Cyrillic, Greek,
    Arabic, accented letters), and one of Chinese, Japanese or Korean. The number of bytes in
    UTF-8 tells these apart without a look at each character.
    """
    if text.isascii():
        return -(-len(text) // 4)
    # `surrogatepass`: half a pair can come in through JSON, and is no reason to fail here.
    beyond = len(text.encode("utf-8", "surrogatepass")) - len(text)  # 1, 2 or 3 per character
    ascii_chars = len(text.encode("ascii", "ignore"))
    return -(-(ascii_chars + 2 * beyond) // 4)

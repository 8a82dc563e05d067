"""str: a long text is joined from lines, changed and split."""

text = "\n".join(f"{number}: the quick brown fox" for number in range(2_000_000))
text = text.replace("quick", "very quick")
print(len(text), text.upper().count("FOX"))

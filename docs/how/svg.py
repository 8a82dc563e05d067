"""A drawing as an SVG file.

It is narrow, so that it can be read on a telephone, has words for who cannot see it, and a ground
of its own, light or dark as the reader's system is.
"""

from xml.sax.saxutils import escape

WIDTH = 480
LINE = 18  # from one line of text to the next
# What fills a shape, and the line around it, on a light ground and on a dark one.
KINDS = {
    "ground": ("#ffffff", "#d0d7de", "#14181f", "#3d444d"),
    "plain": ("#f3f5f8", "#8c959f", "#222831", "#7d8590"),
    "active": ("#cfe3ff", "#0b5cad", "#123a66", "#6cb0ff"),
    "cache": ("#d9f0dd", "#2f7d4a", "#123d22", "#63c585"),
    "slack": ("#eadcf7", "#6f42a8", "#38255a", "#b794f0"),
    "pending": ("#ffe9c4", "#9a6700", "#4a3406", "#e0a83a"),
    "open": ("#ffffff", "#57606a", "#14181f", "#8b949e"),
    "refused": ("#ffdcd7", "#b3261e", "#521b17", "#ff8d84"),
}
INK = ("#1f2328", "#e6e9ee")


def style():
    """The one stylesheet, in each file, since each is shown by itself."""
    rules = {"light": [], "dark": []}
    for kind, (light, light_line, dark, dark_line) in KINDS.items():
        rules["light"].append(f".{kind}{{fill:{light};stroke:{light_line}}}")
        rules["dark"].append(f".{kind}{{fill:{dark};stroke:{dark_line}}}")
    for scheme, ink in zip(rules, INK, strict=True):
        rules[scheme].append(f"text,.head{{fill:{ink}}} .line,.limit{{stroke:{ink}}}")
    shared = (
        "text{font:14px Helvetica,Arial,'Liberation Sans','DejaVu Sans',sans-serif}"
        " .strong{font-weight:bold} .line,.limit{fill:none;stroke-width:1.5}"
        " .limit{stroke-dasharray:6 4;stroke-width:2}"
    )
    dark = "\n".join(rules["dark"])
    return "\n".join([shared, *rules["light"], f"@media (prefers-color-scheme:dark){{\n{dark}\n}}"])


class Drawing:
    """A picture of WIDTH by `height`, in the order in which its parts are put."""

    def __init__(self, height, title, description):
        self.height, self.title = height, title
        self.description = " ".join(description.split())
        self.parts = []

    def put(self, element):
        self.parts.append(element)

    def shape(self, x, y, width, height, kind):
        self.put(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="5"/>')

    def text(self, x, y, text, anchor="middle", strong=False):
        """A line of text whose foot is at y."""
        weight = ' class="strong"' if strong else ""
        self.put(f'<text{weight} x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>')

    def lines(self, x, y, *lines, anchor="start"):
        for number, line in enumerate(lines):
            self.text(x, y + LINE * number, line, anchor)

    def box(self, x, y, width, *lines, kind="plain", height=None):
        """A shape around lines, the first of which says what it is."""
        height = height or LINE * len(lines) + 14
        self.shape(x, y, width, height, kind)
        top = y + (height - LINE * len(lines)) / 2 + 14
        for number, line in enumerate(lines):
            self.text(x + width / 2, top + LINE * number, line, strong=number == 0)

    def arrow(self, *points):
        """A line through points, with its head at the last."""
        path = "M" + " L".join(f"{x} {y}" for x, y in points)
        self.put(f'<path class="line" d="{path}" marker-end="url(#head)"/>')

    def limit(self, x, top, bottom):
        self.put(f'<path class="limit" d="M{x} {top} V{bottom}"/>')

    def bar(self, x, y, height, parts):
        """Parts beside each other: (width, kind, text)."""
        for width, kind, text in parts:
            self.shape(x, y, width, height, kind)
            if text:
                self.text(x + width / 2, y + height / 2 + 5, text)
            x += width

    def svg(self):
        head = (
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
            ' orient="auto"><path class="head" d="M0 0 L8 4 L0 8 z"/></marker>'
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}"'
                f' width="{WIDTH}" height="{self.height}" role="img"'
                ' aria-labelledby="title description">',
                f'<title id="title">{escape(self.title)}</title>',
                f'<desc id="description">{escape(self.description)}</desc>',
                f"<style>\n{style()}\n</style>",
                f"<defs>{head}</defs>",
                # To the edge: what lies behind the corners would be seen.
                f'<rect class="ground" width="{WIDTH}" height="{self.height}"/>',
                *self.parts,
                "</svg>\n",
            ]
        )

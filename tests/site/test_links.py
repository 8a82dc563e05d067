"""Every link from one page of the site to another, and every picture, is there."""

from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page names: its own places, and others."""

    def __init__(self, path):
        super().__init__()
        self.path, self.places, self.named = path, set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        self.places |= {facts[name] for name in ("id", "name") if facts.get(name)}
        self.named += [facts[name] for name in ("href", "src") if facts.get(name)]


def missing(pages, site):
    read = {path: Page(path) for path in pages}
    for path, page in read.items():
        for name in page.named:
            parts = urlsplit(name)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_relative_to(site.resolve()) or not target.exists():
                yield path.name, name
            elif parts.fragment and target.suffix == ".html":
                other = read.get(target) or Page(target)
                if unquote(parts.fragment) not in other.places:
                    yield path.name, name


def test_links_lead_somewhere(site, pages):
    assert sum(len(Page(path).named) for path in pages) > 1000
    assert list(missing([path.resolve() for path in pages], site)) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<a id="here"><a href="#here"><a href="#there"><img src="no.png"><a href="a/">')
    assert list(missing([page], tmp_path)) == [
        ("page.html", "#there"),
        ("page.html", "no.png"),
        ("page.html", "a/"),
    ]


def test_what_is_elsewhere_is_only_linked_to(pages):
    """Fonts, scripts and pictures of another host would be asked for."""
    loaded = [
        (path.name, name)
        for path in pages
        for name in Page(path).named
        if name.startswith(("http:", "//"))
    ]
    assert loaded == []

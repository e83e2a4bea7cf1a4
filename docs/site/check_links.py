"""Every link of a built site leads to a file and an anchor that are there, and nothing is loaded from elsewhere: python docs/site/check_links.py SITE"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "srcset"), ("iframe", "src")}


class Page(HTMLParser):
    """The anchors of a page, and its links."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {v for k in ("id", "name") if (v := found.get(k))}
        for name in ("href", "src", "srcset"):
            if value := found.get(name):
                loaded = (tag, name) in LOADED and found.get("rel") not in ("canonical", "prev", "next", "alternate")
                self.links.append((value, loaded))


def problems(site: Path) -> list[str]:
    """A line for each link that leads nowhere, and for each part that a browser would load from another place."""
    pages = {p.resolve(): Page(p.read_text("utf-8")) for p in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # is shown at any address, so its links begin at the root
        where = path.relative_to(site.resolve()).as_posix()
        for link, loaded in page.links:
            parts = urlsplit(link)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                found += [f"{where}: loads {link}"] if loaded else []
                continue
            to = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            to = to / "index.html" if to.is_dir() else to
            if not to.is_file():
                found.append(f"{where}: {link}: no such file")
            elif (
                parts.fragment
                and to in pages
                and unquote(parts.fragment) not in pages[to].anchors
                and not parts.fragment.startswith("__")
            ):
                found.append(f"{where}: {link}: no such anchor")
    return found


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    print("\n".join(wrong) or f"{sys.argv[1]}: every link leads somewhere")
    sys.exit(bool(wrong))

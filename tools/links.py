"""The links of a built site: does each lead to a file and a place on it that exist?"""
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

LOADED = {'script': 'src', 'img': 'src', 'link': 'href', 'source': 'src', 'iframe': 'src'}


class Links(HTMLParser):
    "What one page links to and loads, and the places on it."

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[key] for key in ('id', 'name') if attrs.get(key)}
        if tag == 'a' and attrs.get('href'): self.links.append(attrs['href'])
        if attrs.get(LOADED.get(tag)) and attrs.get('rel') not in ('canonical', 'prev', 'next'):
            self.loaded.append(attrs[LOADED[tag]])


def problem(site, page, pages, link, loaded):
    "What is wrong with `link` on `page`, or None."
    parts = urlsplit(link)
    if parts.scheme == 'data' or link.startswith(('mailto:', 'javascript:')): return None
    if parts.scheme or parts.netloc: return 'would be loaded from another host' if loaded else None
    target = (page.parent/unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir(): target /= 'index.html'
    if not target.is_relative_to(site) or not target.exists(): return 'no such file'
    fragment = unquote(parts.fragment)
    if fragment and target in pages and fragment not in pages[target].ids: return 'no such place'


def broken_links(site):
    "How many links the pages of the folder `site` have; a line for each that is broken."
    site = site.resolve()
    pages = {path: Links(path.read_text(encoding='utf-8')) for path in site.rglob('*.html')}
    found = [(page, link, kind) for page, links in pages.items()
             for kind, some in ((False, links.links), (True, links.loaded)) for link in some]
    wrong = [(page, link, problem(site, page, pages, link, kind)) for page, link, kind in found
             if page.name != '404.html']  # its links are from the root of the host
    return len(found), [f'{page.relative_to(site)}: {link}: {text}'
                        for page, link, text in wrong if text]

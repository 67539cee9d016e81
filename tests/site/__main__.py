"""`python -m tests.site FOLDER` builds the site below the folder."""

import sys
from pathlib import Path

from tests.site.build import SiteNotBuilt, build

if __name__ == "__main__":
    try:
        site = build(Path(sys.argv[1]))
    except SiteNotBuilt as error:
        sys.exit(str(error))
    print(f"{len(list(site.rglob('*.html')))} pages in {site}; the first is {site / 'index.html'}")

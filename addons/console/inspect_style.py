"""What the inspector's page looks like beyond mitmweb's own style: room for the comment, nothing that is closed on show.

Hiding is for the eye only; what is closed is closed in `inspect_web`. Written for mitmweb 12.2.3 and looked at there.
"""

from mitmproxy.tools.web import app
from tornado.web import RequestHandler

PATH = "/tollgate.css"
_LINK = f'<link rel="stylesheet" href=".{PATH}">'

STYLE = """\
.flow-table .col-comment { width: 38%; text-align: left; }
.flow-table .col-timestamp { width: 14em; }
/* beside an open flow there is room for little more than the comment */
.main-view:has(.flow-detail) .col-comment { width: 50%; }
.main-view:has(.flow-detail) .col-timestamp, .main-view:has(.flow-detail) .col-size { display: none; }
/* the tabs Capture and Options */
nav.nav-tabs-lg > a:nth-of-type(2), nav.nav-tabs-lg > a:nth-of-type(4) { display: none; }
/* intercepting, resuming, killing */
.main-menu .menu-group:has(.fa-pause), .flow-menu .menu-group:has(button[title^="kill"]) { display: none; }
/* editing */
.flow-menu button[title^="revert"], .flow-menu a:has(> button[title="mark flow"]) { display: none; }
.controls button:has(.fa-edit), .controls button:has(.fa-pencil-square-o), .controls a[title^="Upload"] { display: none; }
.kv-add-row { display: none; }
"""


class Style(RequestHandler):
    """The style sheet."""

    def get(self) -> None:
        """CSS, the same for everybody."""
        self.set_header("Content-Type", "text/css; charset=utf-8")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.finish(STYLE)


class Index(app.IndexHandler):  # type: ignore[no-untyped-call]
    """mitmweb's page with our style sheet."""

    def get(self) -> None:
        """The page."""
        page = self.render_string("../index.html").decode()
        self.finish(page.replace("</head>", f"{_LINK}</head>", 1))

    post = get  # the login form

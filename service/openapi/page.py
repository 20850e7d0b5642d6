"""The page at `/`: Swagger UI over our description, out of the files that BentoML ships.

It stands in for BentoML's own page, which loads a tag manager and whose Swagger UI shows a description to a
validator on the internet wherever it is not looked at on the serving machine. The trade-off: it names two of
BentoML's files. Its policy lets a browser fetch from this server alone, whatever comes with those files.
"""

import base64
import hashlib

from starlette.requests import Request
from starlette.responses import HTMLResponse

_SCRIPT = """
SwaggerUIBundle({
  url: "./openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""
_PAGE = f"""<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="UTF-8">
    <title>modelpress</title>
    <link rel="stylesheet" href="./static_content/swagger-ui.css">
    <link rel="icon" href="data:,">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="./static_content/swagger-ui-bundle.js" charset="UTF-8"></script>
    <script>{_SCRIPT}</script>
  </body>
</html>
"""
_DIGEST = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
# Swagger UI writes styles into its elements, and its pictures into its stylesheet.
POLICY = (
    f"default-src 'self'; script-src 'self' 'sha256-{_DIGEST}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


async def page(request: Request) -> HTMLResponse:
    """`GET /`."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": POLICY})
